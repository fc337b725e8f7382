"""The type that arrays meet in, said explicitly so that strict promotion accepts it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike


def common_dtype(*types: DTypeLike) -> jnp.dtype:
    """The type that `types` promote to, also where JAX is set to refuse implicit promotion."""
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*types)


def fold_dtype(*types: DTypeLike) -> jnp.dtype:
    """The dtype a fold runs in: that of `types`, float32 at least."""
    return common_dtype(*types, jnp.float32)
