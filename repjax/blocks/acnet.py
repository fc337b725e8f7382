"""The asymmetric convolution block: KxK + Kx1 + 1xK, batch norm on each."""

from __future__ import annotations

import flax.linen as nn
import jax

from repjax.algebra.padding import Padding
from repjax.blocks.block import PYTORCH_KERNEL_INIT, Block
from repjax.blocks.repconv import Initializer
from repjax.branches import Branch, KxK, Norm


class ACBlock(Block):
    """``norm(convKxK(x)) + norm(convKx1(x)) + norm(conv1xK(x))``.

    The thin kernels strengthen the skeleton of the square one. The convolution lives in the
    node `conv`. No activation follows, so that it can stand for any convolution with norm.

    Args:
        features: output channels.
        kernel_size: of the square convolution.
        strides: one number.
        padding: of the fused convolution; None keeps the size where strides are 1. Where it
            is less than half the kernel, the thin branches see a cropped input.
        dilation: of the block.
        groups: channel groups of all convolutions.
        affine: whether the norms have a trained scale and bias.
        epsilon: of the norms.
        kernel_init: initialiser of the kernels.
        norm_scale_init: initialiser of the norms' scales; a constant 1/3 is published too.
        momentum, axis_name, dtype, param_dtype, precision, deployed: see `Block`.

    Source: Ding et al., ACNet, ICCV 2019.

    Example:
        >>> import jax.numpy as jnp
        >>> variables = ACBlock(4).init(jax.random.key(0), jnp.ones((1, 8, 8, 4)))
        >>> list(variables["params"]["conv"])
        ['y=norm(conv3x3)+norm(conv3x1)+norm(conv1x3)']
    """

    features: int
    kernel_size: int = 3
    strides: int = 1
    padding: Padding | None = None
    dilation: int = 1
    groups: int = 1
    affine: bool = True
    epsilon: float = 1e-5
    kernel_init: Initializer = PYTORCH_KERNEL_INIT
    norm_scale_init: Initializer = nn.initializers.ones_init()

    def branches(self) -> tuple[Branch, ...]:
        """What is added up."""
        size = self.kernel_size
        return tuple(
            Norm(KxK(taps), self.epsilon, scale=self.affine, bias=self.affine)
            for taps in (size, (size, 1), (1, size))
        )

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply to data (batch..., height, width, channels)."""
        return self.conv(
            "conv",
            self.features,
            branches=self.branches(),
            norm=None,
            use_bias=False,
            strides=self.strides,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            kernel_init=self.kernel_init,
            norm_scale_init=self.norm_scale_init,
        )(x, train)
