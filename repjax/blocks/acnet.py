"""The asymmetric convolution block: KxK + Kx1 + 1xK, batch norm on each."""

from __future__ import annotations

import flax.linen as nn
from jax.nn.initializers import Initializer

from repjax.blocks.block import ConvBlock
from repjax.branches import Branch, KxK, Norm


class ACBlock(ConvBlock):
    """``norm(convKxK(x)) + norm(convKx1(x)) + norm(conv1xK(x))``.

    The thin kernels add to the middle row and column of the square one. No activation follows,
    so that it can stand for any convolution with norm.

    Args:
        affine: whether the norms have a trained scale and bias.
        norm_scale_init: initializer of the norms' scales; a constant 1/3 is published too.

    The other arguments are those of `ConvBlock`. Where `padding` is less than half the
    kernel, the thin branches see a cropped input.

    Source: Ding et al., ACNet, ICCV 2019.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> variables = jax.eval_shape(ACBlock(4).init, jax.random.key(0), jnp.ones((1, 8, 8, 4)))
        >>> list(variables["params"]["conv"])
        ['y=norm(conv3x3)+norm(conv3x1)+norm(conv1x3)']
    """

    kernel_size: int = 3
    affine: bool = True
    norm_scale_init: Initializer = nn.initializers.ones_init()

    def branches(self, in_features: int) -> tuple[Branch, ...]:
        """What is added up."""
        size, affine, init = self.kernel_size, self.affine, self.norm_scale_init
        return tuple(
            Norm(KxK(taps), self.epsilon, scale=affine, bias=affine, scale_init=init)
            for taps in (size, (size, 1), (1, size))
        )
