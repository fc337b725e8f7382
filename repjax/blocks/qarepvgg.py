"""The QARepVGG block: batch norm after the sum, so that the merged weights quantize well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax

from repjax.blocks.block import ConvBlock
from repjax.branches import AveragePool, Branch, Identity, KxK, Norm, Pointwise, Sum


class QARepVGGBlock(ConvBlock):
    """``activation(norm(norm(conv3x3(x)) + conv1x1(x) + x))``.

    The identity branch is there only where shapes allow it (strides of 1, as many channels
    in as out). All norms are folded. With a squeeze-excite between the sum and the last
    norm, that norm stays in the deploy form: it comes after something that is not affine.

    Args:
        version: 1 has a norm on every branch as well, 2 on the 3x3 branch alone.
        average: whether there is also an average pool where there is an identity (YOLOv6).

    The other arguments are those of `ConvBlock`; the activation is a ReLU, YOLOv6 has an
    epsilon of 1e-3.

    Source: Chu et al., Make RepVGG Greater Again: A Quantization-aware Approach, AAAI 2024.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.ones((1, 8, 8, 4))
        >>> variables = jax.eval_shape(QARepVGGBlock(4).init, jax.random.key(0), x)
        >>> list(variables["params"]["conv"])
        ['y=norm(norm(conv3x3)+conv1x1+identity)']
    """

    version: Literal[1, 2] = 2
    average: bool = False
    activation: Callable[[jax.Array], jax.Array] | None = nn.relu

    def branches(self, in_features: int) -> tuple[Branch, ...]:
        """What is added up, for that many input channels."""
        branches: list[Branch] = [KxK(self.kernel_size), Pointwise()]
        if self.preserving(in_features):
            branches += [Identity()] + [AveragePool(self.kernel_size)] * self.average
        normed = len(branches) if self.version == 1 else 1
        added = tuple(
            Norm(branch, self.epsilon) if number < normed else branch
            for number, branch in enumerate(branches)
        )
        return added if self.squeeze_excite else (Norm(Sum(added), self.epsilon),)

    def gated(self, x: jax.Array, train: bool) -> jax.Array:
        """The gate and the norm after it, which can only be folded where there is no gate."""
        if not self.squeeze_excite:
            return x
        y: jax.Array = self.batch_norm("norm", train, self.epsilon)(super().gated(x, train))
        return y
