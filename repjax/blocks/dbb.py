"""The Diverse Branch Block: KxK + 1x1 + 1x1-average + 1x1-KxK, batch norm on every layer."""

from __future__ import annotations

import flax.linen as nn
from jax.nn.initializers import Initializer

from repjax.blocks.block import ConvBlock
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


class DiverseBranchBlock(ConvBlock):
    """A KxK convolution with three branches beside it, of different depth and field of view.

    The chains pad their input, so that the second layer meets at the border what batch norm
    makes of zeros. A 1x1 convolution that keeps its channels is trained as a difference to
    the identity. The depthwise form has no 1x1 branch and no convolution before the pool.

    Args:
        internal: channels between 1x1 and KxK; None is as many as come in, twice as many in
            the depthwise form.
        single_init: start as the KxK branch alone: the other norms' scales are zero.

    The other arguments are those of `ConvBlock`.

    Source: Ding et al., Diverse Branch Block, CVPR 2021.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x = jnp.ones((1, 8, 8, 2))
        >>> variables = jax.eval_shape(DiverseBranchBlock(4).init, jax.random.key(0), x)
        >>> for branch in list(variables["params"]["conv"])[0].split("+norm"):
        ...     print(branch)
        y=norm(conv3x3)
        (conv1x1)
        (average3x3(norm(conv1x1)))
        (conv3x3(norm(conv1x1+identity)))
    """

    internal: int | None = None
    single_init: bool = False

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
