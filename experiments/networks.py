"""Small networks to measure that are not published ones: rows of one block.

Each function is a ``module:function`` for `experiments.benchmark`.
"""

from __future__ import annotations

import flax.linen as nn
import jax

from repjax.blocks import ResidualConv


class Row(nn.Module):
    """Blocks ``conv3x3(x) + conv1x1(x) + x`` with ReLU between them.

    Args:
        features: channels.
        groups: of the convolutions.
        length: number of blocks.
        deployed: be the deploy twin.
    """

    features: int = 64
    groups: int = 1
    length: int = 6
    deployed: bool = False

    @property
    def in_channels(self) -> int:
        """Channels of the data."""
        return self.features

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """All of them."""
        for number in range(self.length):
            block = ResidualConv(
                self.features, groups=self.groups, deployed=self.deployed, name=f"block{number}"
            )
            x = nn.relu(block(x))
        return x

    def deploy(self) -> Row:
        """The same with single convolutions."""
        return self.clone(deployed=True)


def dense_row() -> Row:
    """Six dense blocks of 64 channels."""
    return Row()


def depthwise_row() -> Row:
    """Six depthwise blocks of 64 channels."""
    return Row(groups=64)
