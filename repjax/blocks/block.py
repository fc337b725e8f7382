"""What blocks share: fields, their parts, and the block that is one convolution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike

from repjax.algebra.padding import Padding
from repjax.blocks.batch_norm import batch_norm
from repjax.blocks.fields import require_whole
from repjax.blocks.repconv import RepConv
from repjax.blocks.squeeze_excite import SqueezeExcite
from repjax.branches import Branch

PYTORCH_KERNEL_INIT = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def uniform(limit: float) -> Initializer:
    """An initializer, uniform from ``-limit`` to ``limit``.

    PyTorch's for the bias of a convolution has ``limit = fan_in ** -0.5``.

    Args:
        limit: largest absolute value.

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
    """Fields and methods that all blocks and networks share with their parts.

    Args:
        momentum: of the running statistics; PyTorch's 0.1 is 0.9 here.
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
        """The deploy twin: the same module made of single convolutions."""
        return self.clone(deployed=True)

    @property
    def types(self) -> dict[str, Any]:
        """The fields `dtype`, `param_dtype` and `precision` by name, to be given to a layer."""
        return {
            "dtype": self.dtype,
            "param_dtype": self.param_dtype,
            "precision": self.precision,
        }

    @property
    def common(self) -> dict[str, Any]:
        """The fields of `Block` by name, to be given to a child block."""
        return {
            "momentum": self.momentum,
            "axis_name": self.axis_name,
            "deployed": self.deployed,
            **self.types,
        }

    def rep_conv(self, name: str, features: int, **fields: Any) -> RepConv:
        """A `RepConv` child with the fields of this block and PyTorch's initial kernels."""
        return RepConv(
            features, **{"kernel_init": PYTORCH_KERNEL_INIT, **self.common, **fields}, name=name
        )

    def batch_norm(self, name: str, train: bool, epsilon: float = 1e-5) -> nn.BatchNorm:
        """A batch norm of its own, which stays in the deploy form."""
        return batch_norm(
            train,
            momentum=self.momentum,
            axis_name=self.axis_name,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            epsilon=epsilon,
            name=name,
        )

    def gate(self, hidden: int, **fields: Any) -> SqueezeExcite:
        """A squeeze-excite child, `squeeze_excite`, with that many hidden channels."""
        return SqueezeExcite(hidden, **fields, **self.types, name="squeeze_excite")


class ConvBlock(Block):
    """A block that is one convolution when deployed, with a gate and an activation after it.

    A family says what its `branches` are, and which of these fields begin at other values.
    The convolution lives in the node `conv`, the gate in `squeeze_excite`.

    Args:
        features: output channels.
        kernel_size: of the largest convolution, one number or one per axis.
        strides: one number or one per axis.
        padding: of the fused convolution; None keeps the size where strides are 1.
        dilation: of the block.
        groups: channel groups of all convolutions.
        activation: applied last; None leaves it out.
        squeeze_excite: hidden channels of a squeeze-excite; 0 leaves it out.
        square_window: of the squeeze-excite, see `SqueezeExcite`.
        epsilon: of the norms.
        kernel_init: initializer of the kernels.

    Example:
        >>> from repjax.branches import Branch, KxK, Norm
        >>> class Plain(ConvBlock):
        ...     def branches(self, in_features: int) -> tuple[Branch, ...]:
        ...         return (Norm(KxK(self.kernel_size), self.epsilon),)
        >>> x = jax.ShapeDtypeStruct((1, 8, 8, 4), jnp.float32)
        >>> list(jax.eval_shape(Plain(4).init, jax.random.key(0), x)["params"]["conv"])
        ['y=norm(conv3x3)']
    """

    features: int
    kernel_size: int | Sequence[int] = 3
    strides: int | Sequence[int] = 1
    padding: Padding | None = None
    dilation: int | Sequence[int] = 1
    groups: int = 1
    activation: Callable[[jax.Array], jax.Array] | None = None
    squeeze_excite: int = 0
    square_window: bool = False
    epsilon: float = 1e-5
    kernel_init: Initializer = PYTORCH_KERNEL_INIT

    def branches(self, in_features: int) -> tuple[Branch, ...]:
        """What is added up, for that many input channels.

        Raises:
            NotImplementedError: a subclass has not overridden it.
        """
        raise NotImplementedError(f"{type(self).__name__} says what its branches are")

    def preserving(self, in_features: int) -> bool:
        """Whether an identity fits: strides of 1, and as many channels in as out."""
        strides = {self.strides} if isinstance(self.strides, int) else {*self.strides}
        return strides == {1} and in_features == self.features

    def gated(self, x: jax.Array, train: bool) -> jax.Array:
        """What stands between the convolution and the activation."""
        if not self.squeeze_excite:
            return x
        return self.squeeze_excite_layer(name="squeeze_excite")(x)

    def squeeze_excite_layer(self, **fields: Any) -> SqueezeExcite:
        """Its gate, as a layer of that name or parent."""
        window = self.square_window
        return SqueezeExcite(self.squeeze_excite, square_window=window, **self.types, **fields)

    def convolution(self, in_features: int) -> dict[str, Any]:
        """The fields of its `RepConv`, for that many input channels."""
        require_whole("features", self.features)
        return {
            **self.common,
            "features": self.features,
            "branches": self.branches(in_features),
            "norm": None,
            "use_bias": False,
            "dims": 2 if isinstance(self.kernel_size, int) else len(self.kernel_size),
            "strides": self.strides,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
            "kernel_init": self.kernel_init,
        }

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply to data (batch..., spatial..., channels)."""
        y = RepConv(**self.convolution(x.shape[-1]), name="conv")(x, train)
        y = self.gated(y, train)
        return y if self.activation is None else self.activation(y)
