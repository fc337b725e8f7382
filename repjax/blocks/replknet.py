"""The blocks of RepLKNet: a large depthwise kernel trained beside a small one, and its FFN."""

from __future__ import annotations

import flax.linen as nn
import jax

from repjax.blocks.block import Block, gelu
from repjax.blocks.drop_path import DropPath
from repjax.branches import Identity, KxK, Norm, Sequence


class ReparamLargeKernelConv(Block):
    """``norm(conv31x31(x)) + norm(conv5x5(x))``, or any other two sizes.

    Both are padded by half their size, so that the two kernels meet at tap ``size // 2``.
    The convolution lives in the node `conv`.

    Args:
        features: output channels.
        kernel_size: of the large convolution.
        small_kernel_size: of the one beside it; None leaves it out.
        strides: of both.
        groups: channel groups; None means depthwise, as many as input channels.
        epsilon: of the norms.

    Raises:
        ValueError: the small kernel is larger than the large one.

    Source: Ding et al., Scaling Up Your Kernels to 31x31 (RepLKNet), CVPR 2022.

    Example:
        >>> block = ReparamLargeKernelConv(4, kernel_size=13, small_kernel_size=5)
        >>> x = jax.ShapeDtypeStruct((1, 8, 8, 4), "float32")
        >>> list(jax.eval_shape(block.init, jax.random.key(0), x)["params"]["conv"])
        ['y=norm(conv13x13)+norm(conv5x5)']
    """

    features: int
    kernel_size: int = 31
    small_kernel_size: int | None = 5
    strides: int = 1
    groups: int | None = None
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply to data (batch..., height, width, channels)."""
        sizes = [self.kernel_size]
        if self.small_kernel_size is not None:
            sizes.append(self.small_kernel_size)
        if sizes[-1] > sizes[0]:
            raise ValueError(
                f"small_kernel_size {sizes[-1]} is larger than kernel_size {sizes[0]}; "
                "exchange them"
            )
        return self.rep_conv(
            "conv",
            self.features,
            branches=tuple(KxK(size, tap=size // 2) for size in sizes),
            strides=self.strides,
            padding=self.kernel_size // 2,
            groups=x.shape[-1] if self.groups is None else self.groups,
            epsilon=self.epsilon,
        )(x, train)


class RepLKBlock(Block):
    """Norm, pointwise, large kernel and pointwise convolution around a residual connection.

    ``x + drop_path(pointwise2(relu(large_kernel(relu(pointwise1(norm(x)))))))``, a norm after
    each convolution. The norm in front belongs to `pointwise1` and folds into it.

    Args:
        depthwise_features: channels of the large kernel; None means as many as come in.
        kernel_size: of the large kernel.
        small_kernel_size: of the one beside it; None leaves it out.
        drop_path: rate of stochastic depth.

    Source: Ding et al., Scaling Up Your Kernels to 31x31 (RepLKNet), CVPR 2022.

    Example:
        >>> block = RepLKBlock(kernel_size=7, small_kernel_size=3)
        >>> x = jax.ShapeDtypeStruct((1, 8, 8, 4), "float32")
        >>> sorted(jax.eval_shape(block.init, jax.random.key(0), x)["params"])
        ['large_kernel', 'pointwise1', 'pointwise2']
    """

    depthwise_features: int | None = None
    kernel_size: int = 31
    small_kernel_size: int | None = 5
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply to data (batch..., height, width, channels)."""
        features = x.shape[-1]
        width = features if self.depthwise_features is None else self.depthwise_features
        y = self.rep_conv("pointwise1", width, branches=(_after_norm(features),))(x, train)
        y = ReparamLargeKernelConv(
            width,
            self.kernel_size,
            self.small_kernel_size,
            name="large_kernel",
            **self.common,
        )(nn.relu(y), train)
        y = self.rep_conv("pointwise2", features, branches=(KxK(1),))(nn.relu(y), train)
        return x + DropPath(self.drop_path)(y, train)


class RepLKFeedForward(Block):
    """``x + drop_path(pointwise2(gelu(pointwise1(norm(x)))))``, a norm after each convolution.

    The norm in front belongs to `pointwise1` and folds into it.

    Args:
        ratio: hidden channels for each input channel.
        drop_path: rate of stochastic depth.

    Source: Ding et al., Scaling Up Your Kernels to 31x31 (RepLKNet), CVPR 2022.

    Example:
        >>> block = RepLKFeedForward(ratio=2)
        >>> x = jax.ShapeDtypeStruct((1, 8, 8, 4), "float32")
        >>> variables = jax.eval_shape(block.init, jax.random.key(0), x)
        >>> list(variables["params"]["pointwise1"])
        ['y=norm(conv1x1(norm(identity)))']
    """

    ratio: float = 4.0
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply to data (batch..., height, width, channels)."""
        features = x.shape[-1]
        hidden = int(features * self.ratio)
        y = self.rep_conv("pointwise1", hidden, branches=(_after_norm(features),))(x, train)
        y = self.rep_conv("pointwise2", features, branches=(KxK(1),))(gelu(y), train)
        return x + DropPath(self.drop_path)(y, train)


def _after_norm(features: int) -> Sequence:
    """A pointwise convolution with a norm over that many channels in front."""
    return Sequence(Norm(Identity()), KxK(1), features=features)
