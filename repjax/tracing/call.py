"""One call of a function: its inputs as arrays, and the rest that is part of the program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from repjax.leaves import Leaves, is_array


class Call:
    """Flat inputs: arrays, and the rest that is part of the program."""

    def __init__(self, inputs: Sequence[Any]) -> None:
        self._leaves = Leaves(tuple(inputs), _is_input)
        self.arrays = self._leaves.arrays
        self.specs = [spec_of(array) for array in self.arrays]
        arrays = tuple((spec.shape, spec.dtype, spec.weak_type) for spec in self.specs)
        x64 = jax.dtypes.canonicalize_dtype(np.int64)
        leaves = self._leaves
        self.key = (leaves.treedef, tuple(leaves.places), arrays, tuple(leaves.static), str(x64))

    def rebuild(self, arrays: Sequence[Any]) -> tuple[Any, ...]:
        """The inputs with other arrays in their places."""
        inputs: tuple[Any, ...] = self._leaves.rebuild(arrays)
        return inputs


def _is_input(leaf: Any) -> bool:
    number = isinstance(leaf, int | float | complex) and type(leaf) is not bool
    return number or is_array(leaf)


def spec_of(leaf: Any) -> Any:
    """Shape and type of an array or a number, abstract or not."""
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return leaf
    aval = jax.typeof(leaf)
    spec: Any = jax.ShapeDtypeStruct
    return spec(aval.shape, aval.dtype, weak_type=aval.weak_type)
