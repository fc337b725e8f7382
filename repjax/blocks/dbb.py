"""The Diverse Branch Block: KxK + 1x1 + 1x1-average + 1x1-KxK, batch norm on every layer."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax

from repjax.algebra.padding import Padding
from repjax.blocks.block import PYTORCH_KERNEL_INIT, Block
from repjax.blocks.repconv import Initializer
from repjax.branches import (
    AveragePool,
    Branch,
    Identity,
    KxK,
    Norm,
    Pointwise,
    Sequence,
    Sum,
)


class DiverseBranchBlock(Block):
    """A KxK convolution with three branches beside it, of different depth and field of view.

    The chains pad their input, so that the second layer meets at the border what batch norm
    makes of zeros. A 1x1 convolution that keeps its channels is trained as a difference to
    the identity. The depthwise form has no 1x1 branch and no convolution before the pool.
    The convolution lives in the node `conv`.

    Args:
        features: output channels.
        kernel_size: of the larger convolutions and the pool.
        strides: one number.
        padding: of the fused convolution; None keeps the size where strides are 1.
        dilation: of the block.
        groups: channel groups of all convolutions.
        internal: channels between 1x1 and KxK; None is as many as come in, twice as many in
            the depthwise form.
        activation: applied to the sum; None leaves it out.
        single_init: start as the KxK branch alone: the other norms' scales are zero.
        epsilon: of the norms.
        kernel_init: initialiser of the kernels.
        momentum, axis_name, dtype, param_dtype, precision, deployed: see `Block`.

    Source: Ding et al., Diverse Branch Block, CVPR 2021.

    Example:
        >>> import jax.numpy as jnp
        >>> variables = DiverseBranchBlock(4).init(jax.random.key(0), jnp.ones((1, 8, 8, 2)))
        >>> for branch in list(variables["params"]["conv"])[0].split("+norm"):
        ...     print(branch)
        y=norm(conv3x3)
        (conv1x1)
        (average3x3(norm(conv1x1)))
        (conv3x3(norm(conv1x1+identity)))
    """

    features: int
    kernel_size: int = 3
    strides: int = 1
    padding: Padding | None = None
    dilation: int = 1
    groups: int = 1
    internal: int | None = None
    activation: Callable[[jax.Array], jax.Array] | None = None
    single_init: bool = False
    epsilon: float = 1e-5
    kernel_init: Initializer = PYTORCH_KERNEL_INIT

    def branches(self, in_features: int) -> tuple[Branch, ...]:
        """What is added up, for that many input channels."""
        size = self.kernel_size
        depthwise = self.groups == self.features
        internal = self.internal or in_features * (2 if depthwise else 1)
        if internal == in_features:
            zeros = nn.initializers.zeros_init()
            first: Branch = Sum((Pointwise(kernel_init=zeros), Identity()))
        else:
            first = Pointwise()
        deep = Sequence(self._norm(first), KxK(size), features=internal)
        if depthwise:
            others: tuple[Branch, ...] = (AveragePool(size), deep)
        else:
            pooled = Sequence(self._norm(Pointwise()), AveragePool(size))
            others = (Pointwise(), pooled, deep)
        init = nn.initializers.zeros_init() if self.single_init else None
        return (self._norm(KxK(size)), *(self._norm(branch, init) for branch in others))

    def _norm(self, branch: Branch, scale_init: Initializer | None = None) -> Norm:
        return Norm(branch, self.epsilon, scale_init=scale_init)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply to data (batch..., height, width, channels)."""
        y = self.conv(
            "conv",
            self.features,
            branches=self.branches(x.shape[-1]),
            norm=None,
            use_bias=False,
            strides=self.strides,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            kernel_init=self.kernel_init,
        )(x, train)
        return y if self.activation is None else self.activation(y)
