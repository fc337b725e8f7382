"""The RepVGG block: 3x3 + 1x1 + identity, batch norm on each, then an activation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax

from repjax.algebra.padding import Padding
from repjax.blocks.block import PYTORCH_KERNEL_INIT, Block
from repjax.blocks.repconv import Initializer, RepConv
from repjax.blocks.squeeze_excite import SqueezeExcite
from repjax.branches import Identity, KxK, Pointwise


class RepVGGBlock(Block):
    """``activation(norm(conv3x3(x)) + norm(conv1x1(x)) + norm(x))``.

    The identity branch is there only where shapes allow it (strides of 1, as many channels
    in as out). The convolution lives in the node `conv`. Squeeze-excite, where there is one,
    gates the sum before the activation and stays in the deploy form.

    Args:
        features: output channels.
        kernel_size: of the larger convolution, one number or one per axis.
        strides: one number or one per axis.
        padding: of the fused convolution; None keeps the size where strides are 1.
        dilation: of the block.
        groups: channel groups of both convolutions.
        activation: applied to the sum; None leaves it out.
        squeeze_excite: hidden channels of a squeeze-excite; 0 leaves it out.
        square_window: of the squeeze-excite, see `SqueezeExcite`.
        epsilon: of the norms.
        kernel_init: initialiser of the kernels.
        momentum, axis_name, dtype, param_dtype, precision, deployed: see `Block`.

    Source: Ding et al., RepVGG, CVPR 2021.

    Example:
        >>> import jax.numpy as jnp
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
    squeeze_excite: int = 0
    square_window: bool = False
    epsilon: float = 1e-5
    kernel_init: Initializer = PYTORCH_KERNEL_INIT

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
            kernel_init=self.kernel_init,
            name="conv",
            **self.common,
        )(x, train)
        if self.squeeze_excite:
            y = SqueezeExcite(
                self.squeeze_excite,
                square_window=self.square_window,
                name="squeeze_excite",
                **self.types,
            )(y)
        return y if self.activation is None else self.activation(y)
