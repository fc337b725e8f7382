"""What GhostNet's descendants share: tables of bottlenecks, and the network around them."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax

from repjax.blocks.block import Block
from repjax.blocks.squeeze_excite import rounded_width
from repjax.models.network import IMAGENET_BICUBIC, Network, Preprocessing


@dataclasses.dataclass(frozen=True)
class Row:
    """One bottleneck at width 1.

    Args:
        kernel_size: of its depthwise convolution.
        hidden: channels between its two modules.
        features: output channels.
        squeeze_excite: channels of its squeeze-excite, as a fraction of `hidden`; 0 leaves it out.
        strides: of its depthwise convolution.
    """

    kernel_size: int
    hidden: int
    features: int
    squeeze_excite: float = 0.0
    strides: int = 1


@dataclasses.dataclass(frozen=True)
class BottleneckConfig:
    """Sizes that these networks share.

    Args:
        width: all channels are multiplied by it, then rounded to multiples of 4.
        rows: the bottlenecks, in stages.
        stem_width: channels of the stem at width 1.
        head_width: channels between the two layers of the head, whatever the width.
        dropout: rate before the last layer.
        preprocessing: of the images that published weights were trained on.
    """

    width: float = 1.0
    rows: tuple[tuple[Row, ...], ...] = ()
    stem_width: int = 16
    head_width: int = 1280
    dropout: float = 0.2
    preprocessing: Preprocessing = IMAGENET_BICUBIC

    def scaled(self, channels: float) -> int:
        """Channels times the width, a multiple of 4."""
        return rounded_width(channels * self.width, 4)


class BottleneckNetwork(Network):
    """Stem, bottlenecks, pointwise convolution, mean, two linear layers.

    A family says what a `bottleneck` is. `features` are the outputs of the stem and of the
    stages before the next strides.

    Args:
        config: sizes.

    The other arguments are those of `Network`.
    """

    config: BottleneckConfig = BottleneckConfig()

    def bottleneck(self, name: str, row: Row, number: int) -> Block:
        """The bottleneck of a row; `number` counts all of them from 0.

        Raises:
            NotImplementedError: a subclass has not overridden it.
        """
        raise NotImplementedError(f"{type(self).__name__} says what its bottlenecks are")

    @property
    def last_width(self) -> float:
        """Channels of the last convolution at width 1."""
        return self.config.rows[-1][-1].hidden

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool = False, *, features: bool = False
    ) -> jax.Array | tuple[jax.Array, ...]:
        """Images (batch..., height, width, channels) to logits, or to the stages' outputs."""
        self.check(x)
        config = self.config
        stem = self.normed_conv("stem", config.scaled(config.stem_width), 3, strides=2)
        x = nn.relu(stem(x, train))
        outputs, number = [], 0
        for stage, rows in enumerate(config.rows, 1):
            for index, row in enumerate(rows):
                if row.strides != 1:
                    outputs.append(x)
                x = self.bottleneck(f"stage{stage}_block{index}", row, number)(x, train)
                number += 1
        if features:
            return (*outputs, x)
        last = self.normed_conv("last", config.scaled(self.last_width), 1)
        x = nn.relu(last(x, train)).mean(axis=(-3, -2))
        return self.hidden_head(x, config.head_width, config.dropout, train)
