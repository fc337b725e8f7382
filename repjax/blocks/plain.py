"""The plain block: one convolution and its batch norm, as ordinary Flax modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from repjax.algebra.padding import padding_pairs
from repjax.blocks.block import ConvBlock
from repjax.branches import Branch, KxK, Norm
from repjax.branches.convolution import axis_numbers


class PlainBlock(ConvBlock):
    """``activation(norm(convKxK(x)))``, what a multi-branch block is compared with.

    The convolution is a `flax.linen.Conv` in the node `conv`, the norm a
    `flax.linen.BatchNorm` in the node `norm`: there is nothing to fold before
    `repjax.add_branches`, and the norm trains on the batch's statistics of the sum.

    The arguments are those of `ConvBlock`; the activation is a ReLU. It has no deploy form of
    its own: `repjax.fuse` folds the norm.

    Source: the plain networks that Ding et al., RepVGG, CVPR 2021, compare with.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.ones((1, 8, 8, 4))
        >>> variables = jax.eval_shape(PlainBlock(4).init, jax.random.key(0), x)
        >>> jax.tree.map(jnp.shape, variables["params"])
        {'conv': {'kernel': (3, 3, 4, 4)}, 'norm': {'bias': (4,), 'scale': (4,)}}
    """

    activation: Callable[[jax.Array], jax.Array] | None = nn.relu

    def branches(self, in_features: int) -> tuple[Branch, ...]:
        """The one convolution, and its norm."""
        return (Norm(KxK(self.kernel_size), self.epsilon),)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply to data (batch..., spatial..., channels)."""
        fields = self.convolution(x.shape[-1])
        dims: int = fields["dims"]
        size = axis_numbers(self.kernel_size, dims, "kernel_size")
        dilation = axis_numbers(self.dilation, dims, "dilation")
        same = tuple(
            ((taps - 1) // 2 * step, taps // 2 * step)
            for taps, step in zip(size, dilation, strict=True)
        )
        types: dict[str, Any] = self.types
        y = nn.Conv(
            self.features,
            size,
            strides=axis_numbers(self.strides, dims, "strides"),
            padding=same if self.padding is None else padding_pairs(self.padding, dims),
            kernel_dilation=dilation,
            feature_group_count=self.groups,
            use_bias=False,
            kernel_init=self.kernel_init,
            name="conv",
            **types,
        )(x)
        y = self.batch_norm("norm", train, self.epsilon)(y)
        y = self.gated(y, train)
        return y if self.activation is None else self.activation(y)
