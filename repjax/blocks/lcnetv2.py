"""The block of PP-LCNetV2: a depthwise sum over kernel sizes, then pointwise convolutions."""

from __future__ import annotations

import flax.linen as nn
import jax

from repjax.blocks.block import Block
from repjax.branches import KxK


class LCNetV2Block(Block):
    """``pointwise(excite(relu(norm(conv5x5(x)) + norm(conv3x3(x)) + norm(conv1x1(x)))))``.

    The sum is depthwise, and the pointwise convolution, or the two of them, have a norm and a
    ReLU each. A sum with strides has no 1x1.

    Args:
        features: output channels.
        kernel_size: of the largest depthwise convolution.
        strides: of the depthwise sum.
        multi_scale: whether smaller kernels, each by two, stand beside the largest.
        squeeze_excite: channels of the squeeze-excite, as a fraction of the input channels,
            rounded down; 0 leaves it out.
        pointwise_ratio: channels between two pointwise convolutions, as a fraction of
            `features`, rounded down; 0 leaves one.
        shortcut: whether an input that can be added to the output is added.

    The other arguments are those of `Block`.

    Source: PP-LCNetV2, PaddleClas, 2022; Cui et al., PP-LCNet, arXiv 2109.15099, 2021.

    Example:
        >>> import jax.numpy as jnp
        >>> block = LCNetV2Block(8, kernel_size=5, multi_scale=True)
        >>> params = jax.eval_shape(block.init, jax.random.key(0), jnp.ones((1, 9, 9, 4)))["params"]
        >>> list(params["depthwise"])
        ['y=norm(conv5x5)+norm(conv3x3)+norm(conv1x1)']
    """

    features: int
    kernel_size: int = 3
    strides: int = 1
    multi_scale: bool = False
    squeeze_excite: float = 0.0
    pointwise_ratio: float = 0.0
    shortcut: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply to data (batch..., height, width, channels)."""
        inputs = x.shape[-1]
        depthwise = self.rep_conv(
            "depthwise",
            inputs,
            branches=tuple(KxK(size) for size in self._sizes()),
            strides=self.strides,
            padding=(self.kernel_size - 1) // 2,
            groups=inputs,
        )
        y = nn.relu(depthwise(x, train))
        if self.squeeze_excite:
            y = self.gate(int(inputs * self.squeeze_excite))(y)
        if self.pointwise_ratio:
            width = int(self.features * self.pointwise_ratio)
            y = nn.relu(self.rep_conv("pointwise0", width, branches=(KxK(1),))(y, train))
        y = nn.relu(self.rep_conv("pointwise", self.features, branches=(KxK(1),))(y, train))
        return y + x if self.shortcut and self.strides == 1 and inputs == self.features else y

    def _sizes(self) -> list[int]:
        """Kernel sizes of the depthwise sum."""
        if not self.multi_scale:
            return [self.kernel_size]
        least = 1 if self.strides == 1 else 2
        return [size for size in range(self.kernel_size, 0, -2) if size >= least]
