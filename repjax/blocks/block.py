"""What the blocks of the mobile families share: their common fields and published initialisers."""

from __future__ import annotations

from typing import Any, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from repjax.blocks.repconv import Initializer, RepConv

PYTORCH_KERNEL_INIT = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def uniform(limit: float) -> Initializer:
    """An initialiser, uniform from ``-limit`` to ``limit``.

    PyTorch's for the bias of a convolution has ``limit = fan_in ** -0.5``.

    Example:
        >>> bool((abs(uniform(0.5)(jax.random.key(0), (99,), jnp.float32)) <= 0.5).all())
        True
    """

    def init(key: jax.Array, shape: Any, dtype: Any = None, out_sharding: Any = None) -> jax.Array:
        kind = jnp.float32 if dtype is None else dtype
        return jax.random.uniform(key, shape, kind, -limit, limit)

    return init


def gelu(x: jax.Array) -> jax.Array:
    """The exact GELU, by the error function.

    Example:
        >>> float(gelu(jnp.zeros(())))
        0.0
    """
    return nn.gelu(x, approximate=False)


class Block(nn.Module, kw_only=True):
    """Fields and methods that a block made of several `RepConv` shares with its parts.

    Args:
        momentum: of the running statistics (0.9 is PyTorch's 0.1).
        axis_name: mapped axis over which batch statistics are averaged.
        dtype: compute type; None promotes.
        param_dtype: type of the parameters.
        precision: of the products.
        deployed: be made of single convolutions.
    """

    momentum: float = 0.9
    axis_name: str | None = None
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32
    precision: lax.PrecisionLike = None
    deployed: bool = False

    def deploy(self) -> Self:
        """The deploy twin: the same block made of single convolutions."""
        return self.clone(deployed=True)

    @property
    def types(self) -> dict[str, Any]:
        """Types and precision, as every layer takes them."""
        return {
            "dtype": self.dtype,
            "param_dtype": self.param_dtype,
            "precision": self.precision,
        }

    @property
    def common(self) -> dict[str, Any]:
        """All fields of this class, as every block takes them."""
        return {
            "momentum": self.momentum,
            "axis_name": self.axis_name,
            "deployed": self.deployed,
            **self.types,
        }

    def conv(self, name: str, features: int, **fields: Any) -> RepConv:
        """A `RepConv` child with the fields of this block and PyTorch's initial kernels."""
        return RepConv(
            features, **{"kernel_init": PYTORCH_KERNEL_INIT, **self.common, **fields}, name=name
        )
