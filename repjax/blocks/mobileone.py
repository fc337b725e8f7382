"""The MobileOne block: several KxK + 1x1 + identity, batch norm on each, then an activation."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax

from repjax.algebra.padding import Padding
from repjax.blocks.block import PYTORCH_KERNEL_INIT, Block
from repjax.blocks.repconv import Initializer, RepConv
from repjax.blocks.squeeze_excite import SqueezeExcite
from repjax.branches import Branch, Identity, KxK, Pointwise


class MobileOneBlock(Block):
    """``activation(norm(convKxK(x)) * n + norm(conv1x1(x)) + norm(x))``, n copies of KxK.

    The 1x1 branch is there only for kernels above 1x1, the identity only where shapes allow
    it (strides of 1, as many channels in as out). The convolution lives in the node `conv`.
    Squeeze-excite, where there is one, gates the sum and stays in the deploy form.

    Args:
        features: output channels.
        kernel_size: of the copies.
        strides: one number.
        padding: of the fused convolution; None keeps the size where strides are 1.
        dilation: of the block.
        groups: channel groups of all convolutions.
        copies: number of KxK branches; 0 leaves 1x1 and identity.
        scale: whether there is a 1x1 branch beside kernels above 1x1.
        identity: whether there is an identity branch where shapes allow it.
        activation: applied to the sum; None leaves it out.
        squeeze_excite: hidden channels of a squeeze-excite; 0 leaves it out.
        epsilon: of the norms.
        kernel_init: initialiser of the kernels.
        momentum, axis_name, dtype, param_dtype, precision, deployed: see `Block`.

    Source: Vasu et al., MobileOne, CVPR 2023.

    Example:
        >>> import jax.numpy as jnp
        >>> block = MobileOneBlock(4, copies=2)
        >>> list(block.init(jax.random.key(0), jnp.ones((1, 8, 8, 4)))["params"]["conv"])
        ['y=2*norm(conv3x3)+norm(conv1x1)+norm(identity)']
    """

    features: int
    kernel_size: int = 3
    strides: int = 1
    padding: Padding | None = None
    dilation: int = 1
    groups: int = 1
    copies: int = 1
    scale: bool = True
    identity: bool = True
    activation: Callable[[jax.Array], jax.Array] | None = nn.relu
    squeeze_excite: int = 0
    epsilon: float = 1e-5
    kernel_init: Initializer = PYTORCH_KERNEL_INIT

    @property
    def branches(self) -> tuple[Branch, ...]:
        """What is added up, each with its norm."""
        branches: list[Branch] = [KxK(self.kernel_size)] * self.copies
        if self.scale and self.kernel_size > 1:
            branches.append(Pointwise())
        if self.identity:
            branches.append(Identity(optional=True))
        return tuple(branches)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply to data (batch..., height, width, channels)."""
        y = RepConv(
            self.features,
            branches=self.branches,
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
                name="squeeze_excite",
                **self.types,
            )(y)
        return y if self.activation is None else self.activation(y)
