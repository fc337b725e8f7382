"""The two kinds of blocks in FastViT's stages: a mixer or attention, then a convolutional FFN."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from repjax.blocks.block import Block, gelu
from repjax.blocks.drop_path import DropPath
from repjax.blocks.fastvit import RepMixer
from repjax.blocks.repconv import RepConv
from repjax.branches import Branch, Identity, KxK, Norm, Scale, Sequence

_SMALL_NORMAL = nn.initializers.truncated_normal(0.02)


class ConvFFN(Block):
    """``scale * pointwise2(gelu(pointwise1(norm(conv7x7(x)))))``, the 7x7 depthwise.

    The norm folds into the node `depthwise`, the scale into `pointwise2`.

    Args:
        ratio: hidden channels for each input channel.
        layer_scale: initial value of the scale per channel; None leaves it out.

    The other arguments are those of `Block`.

    Source: Vasu et al., FastViT, ICCV 2023.

    Example:
        >>> variables = jax.eval_shape(ConvFFN(2).init, jax.random.key(0), jnp.ones((1, 8, 8, 4)))
        >>> list(variables["params"]["pointwise2"])
        ['y=scale(conv1x1[bias])']
    """

    ratio: float = 4.0
    layer_scale: float | None = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply to data (batch..., height, width, channels)."""
        features = x.shape[-1]
        hidden = int(features * self.ratio)
        depthwise = self.rep_conv(
            "depthwise", features, branches=(KxK(7),), groups=features, kernel_init=_SMALL_NORMAL
        )
        x = depthwise(x, train)
        x = nn.Dense(hidden, kernel_init=_SMALL_NORMAL, **self.types, name="pointwise1")(x)
        pointwise2 = scaled_pointwise(self, "pointwise2", features, self.layer_scale)
        return pointwise2(gelu(x), train)


class RepMixerBlock(Block):
    """``x + drop_path(ffn(x))`` with ``x = mixer(x)``: a `RepMixer`, then a `ConvFFN`.

    Args:
        kernel_size: of the mixer.
        ratio: of the feed-forward network.
        layer_scale: initial value of both layer scales; None leaves them out.
        drop_path: rate of stochastic depth.

    The other arguments are those of `Block`.

    Source: Vasu et al., FastViT, ICCV 2023.

    Example:
        >>> block = RepMixerBlock(ratio=2)
        >>> x = jnp.ones((1, 8, 8, 4))
        >>> y, _ = jax.eval_shape(block.init_with_output, jax.random.key(0), x)
        >>> y.shape
        (1, 8, 8, 4)
    """

    kernel_size: int = 3
    ratio: float = 4.0
    layer_scale: float | None = 1e-5
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply to data (batch..., height, width, channels)."""
        mixer = RepMixer(self.kernel_size, self.layer_scale, **self.common, name="token_mixer")
        x = mixer(x, train)
        y = ConvFFN(self.ratio, self.layer_scale, **self.common, name="feed_forward")(x, train)
        return x + DropPath(self.drop_path)(y, train)


class AttentionBlock(Block):
    """Self-attention over all positions, then a `ConvFFN`, both residual.

    ``x + drop_path(scale * project(attention(query_key_value(norm(x)))))``: the norm in front
    folds into the node `query_key_value`, the scale into `project`.

    Args:
        ratio: of the feed-forward network.
        head_features: channels of each head.
        layer_scale: initial value of both layer scales; None leaves them out.
        drop_path: rate of stochastic depth.
        norm: in front of the attention: "batch", or "layer" in a node `norm` that stays.

    The other arguments are those of `Block`.

    Raises:
        ValueError: `head_features` does not divide the channels, or `norm` is neither.

    Source: Vasu et al., FastViT, ICCV 2023; Vaswani et al., Attention Is All You Need,
    NeurIPS 2017.

    Example:
        >>> block = AttentionBlock(head_features=2)
        >>> variables = jax.eval_shape(block.init, jax.random.key(0), jnp.ones((1, 8, 8, 4)))
        >>> list(variables["params"]["query_key_value"])
        ['y=conv1x1(norm(identity))']
    """

    ratio: float = 4.0
    head_features: int = 32
    layer_scale: float | None = 1e-5
    drop_path: float = 0.0
    norm: str = "batch"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply to data (batch..., height, width, channels)."""
        features, depth = x.shape[-1], self.head_features
        if features % depth:
            raise ValueError(f"{features} channels are no multiple of head_features={depth}")
        if self.norm not in ("batch", "layer"):
            raise ValueError(f"norm is 'batch' or 'layer'; found {self.norm!r}")
        y, mapped = x, KxK(1)
        if self.norm == "layer":
            y = nn.LayerNorm(
                epsilon=1e-5,
                use_fast_variance=False,
                dtype=self.dtype,
                param_dtype=self.param_dtype,
                name="norm",
            )(x)
        y = self.rep_conv(
            "query_key_value",
            3 * features,
            branches=(mapped if self.norm == "layer" else Sequence(Norm(Identity()), mapped),),
            norm=None,
            use_bias=False,
            kernel_init=_SMALL_NORMAL,
        )(y, train)
        heads = y.reshape(*y.shape[:-3], -1, 3, features // depth, depth)
        query, key, value = (heads[..., number, :, :] for number in range(3))
        weights = jnp.einsum(
            "...qhd,...khd->...hqk", query * depth**-0.5, key, precision=self.precision
        )
        weights = jax.nn.softmax(weights, axis=-1)
        y = jnp.einsum("...hqk,...khd->...qhd", weights, value, precision=self.precision)
        y = scaled_pointwise(self, "project", features, self.layer_scale)(y.reshape(x.shape), train)
        x = x + DropPath(self.drop_path)(y, train)
        y = ConvFFN(self.ratio, self.layer_scale, **self.common, name="feed_forward")(x, train)
        return x + DropPath(self.drop_path)(y, train)


def scaled_pointwise(block: Block, name: str, features: int, layer_scale: float | None) -> RepConv:
    """A 1x1 convolution with bias, and a layer scale after it.

    Args:
        block: whose child it is.
        name: of the child.
        features: output channels.
        layer_scale: initial value of the scale; None leaves it out.
    """
    pointwise: Branch = KxK(1, bias=True)
    return block.rep_conv(
        name,
        features,
        branches=(pointwise if layer_scale is None else Scale(pointwise),),
        norm=None,
        kernel_init=_SMALL_NORMAL,
        scale_init=nn.initializers.constant(layer_scale or 0.0),
    )
