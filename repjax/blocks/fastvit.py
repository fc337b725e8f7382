"""What FastViT folds to one convolution each: token mixer, positional encoding, patch embedding."""

from __future__ import annotations

import flax.linen as nn
import jax

from repjax.blocks.block import Block, gelu, uniform
from repjax.blocks.mobileone import MobileOneBlock
from repjax.blocks.replknet import ReparamLargeKernelConv
from repjax.blocks.squeeze_excite import rounded_width
from repjax.branches import Branch, Identity, KxK, Negate, Norm, Scale, Sum


class RepMixer(Block):
    """``x + scale * (norm(conv3x3(x)) + norm(conv1x1(x)) + norm(x) - norm(x))``, depthwise.

    The last two norms are two different ones. The convolution lives in the node `conv`.

    Args:
        kernel_size: of the larger convolution.
        layer_scale: initial value of the scale per channel; None leaves it out.

    The other arguments are those of `Block`.

    Source: Vasu et al., FastViT, ICCV 2023.

    Example:
        >>> import jax.numpy as jnp
        >>> variables = jax.eval_shape(RepMixer().init, jax.random.key(0), jnp.ones((1, 8, 8, 4)))
        >>> list(variables["params"]["conv"])
        ['y=identity+scale(norm(conv3x3)+norm(conv1x1)+norm(identity)-norm(identity))']
    """

    kernel_size: int = 3
    layer_scale: float | None = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply to data (batch..., height, width, channels)."""
        size = self.kernel_size
        mixed: list[Branch] = [Norm(KxK(size, tap=size // 2))]
        mixed += [Norm(KxK(1))] if size > 1 else []
        mixed += [Norm(Identity()), Negate(Norm(Identity()))]
        scaled = [Scale(Sum(tuple(mixed)))] if self.layer_scale is not None else mixed
        y: jax.Array = self.rep_conv(
            "conv",
            x.shape[-1],
            branches=(Identity(), *scaled),
            norm=None,
            use_bias=False,
            padding=size // 2,
            groups=x.shape[-1],
            scale_init=nn.initializers.constant(self.layer_scale or 0.0),
        )(x, train)
        return y


class RepCPE(Block):
    """``conv7x7(x) + x``, depthwise: a positional encoding conditioned on the image.

    The convolution lives in the node `conv`.

    Args:
        kernel_size: of the convolution.

    The other arguments are those of `Block`.

    Source: Vasu et al., FastViT, ICCV 2023; Chu et al., Conditional Positional Encodings for
    Vision Transformers, ICLR 2023.

    Example:
        >>> import jax.numpy as jnp
        >>> variables = jax.eval_shape(RepCPE().init, jax.random.key(0), jnp.ones((1, 8, 8, 4)))
        >>> list(variables["params"]["conv"])
        ['y=conv7x7[bias]+identity']
    """

    kernel_size: int = 7

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply to data (batch..., height, width, channels)."""
        size = self.kernel_size
        y: jax.Array = self.rep_conv(
            "conv",
            x.shape[-1],
            branches=(KxK(size, tap=size // 2, bias=True), Identity()),
            norm=None,
            padding=size // 2,
            groups=x.shape[-1],
            bias_init=uniform(1 / size),
        )(x, train)
        return y


class PatchEmbed(Block):
    """A depthwise large kernel with strides, then a pointwise MobileOne block and its GELU.

    The large kernel has a small one beside it, node `large_kernel`; the other is `pointwise`.

    Args:
        features: output channels, a multiple of the input's.
        kernel_size: of the large kernel.
        small_kernel_size: of the one beside it.
        strides: of both.
        squeeze_excite: whether a gate, a quarter as wide in multiples of 8, stands between.
        activation: whether a GELU stands between. The published code computes it and throws
            it away.

    The other arguments are those of `Block`.

    Source: Vasu et al., FastViT, ICCV 2023.

    Example:
        >>> import jax.numpy as jnp
        >>> block = PatchEmbed(8)
        >>> x = jnp.ones((1, 8, 8, 4))
        >>> y, _ = jax.eval_shape(block.init_with_output, jax.random.key(0), x)
        >>> y.shape
        (1, 4, 4, 8)
    """

    features: int
    kernel_size: int = 7
    small_kernel_size: int = 3
    strides: int = 2
    squeeze_excite: bool = False
    activation: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply to data (batch..., height, width, channels)."""
        x = ReparamLargeKernelConv(
            self.features,
            kernel_size=self.kernel_size,
            small_kernel_size=self.small_kernel_size,
            strides=self.strides,
            **self.common,
            name="large_kernel",
        )(x, train)
        if self.squeeze_excite:
            width = rounded_width(self.features * 0.25, 8, round_limit=0)
            x = self.gate(width)(x)
        y: jax.Array = MobileOneBlock(
            self.features,
            kernel_size=1,
            activation=gelu,
            **self.common,
            name="pointwise",
        )(gelu(x) if self.activation else x, train)
        return y
