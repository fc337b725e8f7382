"""Shapes of a module's variables, by tracing its `init` once for all tests that ask."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def shapes_of(module: nn.Module, x: Any, dtype: Any = jnp.float32) -> Any:
    """As `jax.eval_shape(module.init, key, x)` gives them.

    Args:
        module: a block or network without arrays in its fields.
        x: an array or its shape, in a `ShapeDtypeStruct` or a tuple.
        dtype: of `x`, where that is a tuple.
    """
    shape, dtype = (x, dtype) if isinstance(x, tuple) else (x.shape, x.dtype)
    dtype, double = map(jax.dtypes.canonicalize_dtype, (dtype, jnp.float64))
    return jax.tree.map(lambda leaf: leaf, _shapes(module, tuple(shape), dtype, double))


@functools.lru_cache(maxsize=256)
def _shapes(module: nn.Module, shape: tuple[int, ...], dtype: Any, double: Any) -> Any:
    x = jax.ShapeDtypeStruct(shape, dtype)
    return jax.eval_shape(module.init, jax.random.key(0), x)
