"""The initializers that PyTorch gives convolutions and linear maps, and published ones."""

from __future__ import annotations

from jax.nn.initializers import Initializer, truncated_normal

from repjax.blocks.block import PYTORCH_KERNEL_INIT, uniform

uniform_kernel: Initializer = PYTORCH_KERNEL_INIT
"""PyTorch's default for kernels: uniform in plus or minus 1/sqrt(fan_in)."""

small_normal: Initializer = truncated_normal(0.02)
"""Truncated normal of standard deviation 0.02."""


def uniform_bias(fan_in: int) -> Initializer:
    """PyTorch's default for biases: uniform in plus or minus 1/sqrt(fan_in).

    Args:
        fan_in: inputs of each output of the layer.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> bias = uniform_bias(100)(jax.random.key(0), (50,), jnp.float32)
        >>> bool(jnp.abs(bias).max() <= 0.1)
        True
    """
    return uniform(fan_in**-0.5)
