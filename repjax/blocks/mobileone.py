"""The MobileOne block: several KxK + 1x1 + identity, batch norm on each, then an activation."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax

from repjax.blocks.block import ConvBlock
from repjax.branches import Branch, Identity, KxK, Norm, Pointwise


class MobileOneBlock(ConvBlock):
    """``activation(norm(convKxK(x)) * n + norm(conv1x1(x)) + norm(x))``, n copies of KxK.

    The 1x1 branch is there only for kernels above 1x1, the identity only where shapes allow
    it (strides of 1, as many channels in as out). Squeeze-excite, where there is one, gates the
    sum and stays in the deploy form.

    Args:
        copies: number of KxK branches; 0 leaves 1x1 and identity.
        scale: whether there is a 1x1 branch beside kernels above 1x1.
        identity: whether there is an identity branch where shapes allow it.

    The other arguments are those of `ConvBlock`; the activation is a ReLU.

    Source: Vasu et al., MobileOne, CVPR 2023.

    Example:
        >>> import jax.numpy as jnp
        >>> block = MobileOneBlock(4, copies=2)
        >>> x = jnp.ones((1, 8, 8, 4))
        >>> list(jax.eval_shape(block.init, jax.random.key(0), x)["params"]["conv"])
        ['y=2*norm(conv3x3)+norm(conv1x1)+norm(identity)']
    """

    copies: int = 1
    scale: bool = True
    identity: bool = True
    activation: Callable[[jax.Array], jax.Array] | None = nn.relu

    def branches(self, in_features: int) -> tuple[Branch, ...]:
        """What is added up, each with its norm."""
        branches: list[Branch] = [KxK(self.kernel_size)] * self.copies
        if self.scale and self.kernel_size != 1:
            branches.append(Pointwise())
        if self.identity and self.preserving(in_features):
            branches.append(Identity())
        return tuple(Norm(branch, self.epsilon) for branch in branches)
