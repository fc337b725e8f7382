"""The Linen and the NNX form of one block on the same arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from repjax.trees.find import merge


def laid_over(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Linen variables as NNX holds them: the collections in one tree."""
    return merge(variables.values(), [])


def fill(model: nnx.Module, variables: Mapping[str, Any]) -> None:
    """Give a module the arrays of Linen variables, by the same names."""
    state = nnx.state(model)
    pure = laid_over(variables)
    assert jax.tree.structure(nnx.to_pure_dict(state)) == jax.tree.structure(pure)
    nnx.replace_by_pure_dict(state, jax.tree.map(jax.numpy.asarray, pure))
    nnx.update(model, state)


def arrays(model: nnx.Module) -> Any:
    """The arrays of a module in nested dicts of NumPy, random keys left out."""
    return jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.RngState))))
