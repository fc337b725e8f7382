"""The RepVGG block: 3x3 + 1x1 + identity, batch norm on each, then an activation."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax

from repjax.blocks.block import ConvBlock
from repjax.branches import Branch, Identity, KxK, Norm, Pointwise


class RepVGGBlock(ConvBlock):
    """``activation(norm(conv3x3(x)) + norm(conv1x1(x)) + norm(x))``.

    The identity branch is there only where shapes allow it (strides of 1, as many channels
    in as out). Squeeze-excite, where there is one, gates the sum before the activation and
    stays in the deploy form.

    The arguments are those of `ConvBlock`; the activation is a ReLU.

    Source: Ding et al., RepVGG, CVPR 2021.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.ones((1, 8, 8, 4))
        >>> variables = jax.eval_shape(RepVGGBlock(4).init, jax.random.key(0), x)
        >>> list(variables["params"]["conv"])
        ['y=norm(conv3x3)+norm(conv1x1)+norm(identity)']
    """

    activation: Callable[[jax.Array], jax.Array] | None = nn.relu

    def branches(self, in_features: int) -> tuple[Branch, ...]:
        """What is added up, each with its norm."""
        branches: list[Branch] = [KxK(self.kernel_size), Pointwise()]
        branches += [Identity()] * self.preserving(in_features)
        return tuple(Norm(branch, self.epsilon) for branch in branches)
