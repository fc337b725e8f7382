"""The RepVGG block: 3x3 + 1x1 + identity, batch norm on each, then an activation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from repjax.algebra.padding import Padding
from repjax.blocks.repconv import RepConv
from repjax.branches import Identity, KxK, Pointwise


class RepVGGBlock(nn.Module):
    """``activation(norm(conv3x3(x)) + norm(conv1x1(x)) + norm(x))``.

    The identity branch is there only where shapes allow it (strides of 1, as many channels
    in as out). The convolution lives in the node `conv`.

    Args:
        features: output channels.
        kernel_size: of the larger convolution, one number or one per axis.
        strides: one number or one per axis.
        padding: of the fused convolution; None keeps the size where strides are 1.
        dilation: of the block.
        groups: channel groups of both convolutions.
        activation: applied to the sum; None leaves it out.
        epsilon: of the norms.
        momentum: of the running statistics (0.9 is PyTorch's 0.1).
        axis_name: mapped axis over which batch statistics are averaged.
        dtype: compute type; None promotes.
        param_dtype: type of the parameters.
        precision: of the convolutions.
        deployed: be one convolution and the activation.

    Source: Ding et al., RepVGG, CVPR 2021.

    Example:
        >>> variables = RepVGGBlock(4).init(jax.random.key(0), jnp.ones((1, 8, 8, 4)))
        >>> list(variables["params"]["conv"])
        ['y=norm(conv3x3)+norm(conv1x1)+norm(identity)']
    """

    features: int
    kernel_size: int | Sequence[int] = 3
    strides: int | Sequence[int] = 1
    padding: Padding | None = None
    dilation: int | Sequence[int] = 1
    groups: int = 1
    activation: Callable[[jax.Array], jax.Array] | None = nn.relu
    epsilon: float = 1e-5
    momentum: float = 0.9
    axis_name: str | None = None
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32
    precision: lax.PrecisionLike = None
    deployed: bool = False

    def deploy(self) -> RepVGGBlock:
        """The deploy twin."""
        return self.clone(deployed=True)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply to data (batch..., spatial..., channels)."""
        size = self.kernel_size
        y = RepConv(
            self.features,
            branches=(KxK(size), Pointwise(), Identity(optional=True)),
            norm="branch",
            dims=2 if isinstance(size, int) else len(size),
            strides=self.strides,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            epsilon=self.epsilon,
            momentum=self.momentum,
            axis_name=self.axis_name,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            precision=self.precision,
            deployed=self.deployed,
            name="conv",
        )(x, train)
        return y if self.activation is None else self.activation(y)
