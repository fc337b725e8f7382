"""The fold: from the user's variables to the parameters of a plan, in one compiled program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from repjax import sharding
from repjax.tracing.plan.naming import indices_of
from repjax.tracing.plan.parameters import Parameter, Path
from repjax.tracing.program.weights import evaluate


class Fold:
    """A pure function of arrays; variables that are parameters as they stand pass through.

    Args:
        parameters: of the plan.
    """

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self._parameters = parameters
        self._fresh = [one for one in parameters if one.weight.name != "variable"]
        self._read = sorted({index for one in self._fresh for index in one.weight.variables})
        self._jitted = jax.jit(self._compute)

    def __call__(self, arrays: Sequence[Any]) -> dict[Path, Any]:
        """The parameters by path; abstract if an array is. Shardings of arrays carry over."""
        read = [arrays[index] for index in self._read]
        if any(isinstance(array, jax.ShapeDtypeStruct) for array in read):
            return self.abstract(arrays)
        if not self._fresh:
            return self._by_path(arrays, [])
        return self._by_path(arrays, sharding.keep(self._jitted, self._shardings(arrays), read))

    def abstract(self, specs: Sequence[Any]) -> dict[Path, Any]:
        """Shapes and types of the parameters."""
        read = [specs[index] for index in self._read]
        return self._by_path(specs, jax.eval_shape(self._jitted, read) if self._fresh else [])

    def _compute(self, read: Sequence[Any]) -> list[Any]:
        arrays = dict(zip(self._read, read, strict=True))
        values = evaluate([one.weight for one in self._fresh], arrays)
        found = [(values[one.weight], one.dtype) for one in self._fresh]
        return [
            value if dtype is None else jnp.asarray(value).astype(dtype) for value, dtype in found
        ]

    def _shardings(self, arrays: Sequence[Any]) -> list[Any]:
        """As the first variable that comes in as a kernel (or at all) is sharded."""
        found = []
        for one in self._fresh:
            first = arrays[indices_of([one.weight])[0]]
            shape = one.weight.shape
            found.append(None if shape is None else sharding.sharding_of(first, shape))
        return found

    def _by_path(self, arrays: Sequence[Any], fresh: Sequence[Any]) -> dict[Path, Any]:
        computed = dict(zip([one.path for one in self._fresh], fresh, strict=True))
        return {
            one.path: arrays[one.weight.value]
            if one.weight.name == "variable"
            else computed[one.path]
            for one in self._parameters
        }
