"""The initialisers that PyTorch gives convolutions and linear maps, and published ones."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.nn.initializers import Initializer, truncated_normal, variance_scaling

uniform_kernel: Initializer = variance_scaling(1 / 3, "fan_in", "uniform")
"""PyTorch's default for kernels: uniform in plus or minus 1/sqrt(fan_in)."""

small_normal: Initializer = truncated_normal(0.02)
"""Truncated normal of standard deviation 0.02."""


def uniform_bias(fan_in: int) -> Initializer:
    """PyTorch's default for biases: uniform in plus or minus 1/sqrt(fan_in).

    Args:
        fan_in: inputs of each output of the layer.

    Example:
        >>> bias = uniform_bias(100)(jax.random.key(0), (50,), jnp.float32)
        >>> bool(jnp.abs(bias).max() <= 0.1)
        True
    """

    def init(key: Any, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> jax.Array:
        limit = fan_in**-0.5
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return init
