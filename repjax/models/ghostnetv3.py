"""GhostNetV3: a stem, ghost bottlenecks, a pointwise convolution, a head of two layers."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax

from repjax.blocks.ghostnetv3 import GhostBottleneckV3
from repjax.blocks.squeeze_excite import rounded_width
from repjax.branches import KxK
from repjax.models.bottleneck_row import Row
from repjax.models.network import Network, Preprocessing
from repjax.models.registry import register_model

PREPROCESSING = Preprocessing(interpolation="bicubic")

ROWS = (
    (Row(3, 16, 16),),
    (Row(3, 48, 24, 0, 2),),
    (Row(3, 72, 24),),
    (Row(5, 72, 40, 0.25, 2),),
    (Row(5, 120, 40, 0.25),),
    (Row(3, 240, 80, 0, 2),),
    (Row(3, 200, 80), *(Row(3, 184, 80),) * 2, *(Row(3, h, 112, 0.25) for h in (480, 672))),
    (Row(5, 672, 160, 0.25, 2),),
    (Row(5, 960, 160), Row(5, 960, 160, 0.25)) * 2,
)


@dataclasses.dataclass(frozen=True)
class GhostNetV3Config:
    """Sizes of a GhostNetV3.

    Args:
        width: all channels are multiplied by it, then rounded to multiples of 4.
        rows: the bottlenecks, in stages.
        stem_width: channels of the stem at width 1.
        head_width: channels between the two layers of the head, whatever the width.
        copies: of the larger kernel of each sum.
        gated_from: number of the first bottleneck, from 0, that has a gate in its first module.
        dropout: rate before the last layer.
        preprocessing: of the images that published weights were trained on.
    """

    width: float = 1.0
    rows: tuple[tuple[Row, ...], ...] = ROWS
    stem_width: int = 16
    head_width: int = 1280
    copies: int = 3
    gated_from: int = 2
    dropout: float = 0.2
    preprocessing: Preprocessing = PREPROCESSING

    def scaled(self, channels: float) -> int:
        """Channels times the width, a multiple of 4."""
        return rounded_width(channels * self.width, 4)


class GhostNetV3(Network):
    """GhostNetV3: stem, bottlenecks, pointwise convolution, mean, two linear layers.

    `features` are the outputs of the stem and of the stages before the next strides.

    Args:
        config: sizes; `CONFIGS` has the published ones.

    The other arguments are those of `Network`.

    Raises:
        ValueError: the images are so small that the data of a gate has a single row or column.

    Source: Liu et al., GhostNetV3: Exploring the Training Strategies for Compact Models,
    arXiv 2404.11202, 2024.

    Example:
        >>> import jax.numpy as jnp
        >>> model = GhostNetV3(config=GhostNetV3Config(rows=ROWS[:3]), num_classes=5)
        >>> x = jnp.ones((32, 32, 3))
        >>> variables = jax.eval_shape(model.init, jax.random.key(0), x)
        >>> jax.eval_shape(model.apply, variables, x).shape
        (5,)
    """

    config: GhostNetV3Config = GhostNetV3Config()

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool = False, *, features: bool = False
    ) -> jax.Array | tuple[jax.Array, ...]:
        """Images (batch..., height, width, channels) to logits, or to the stages' outputs."""
        self.check(x)
        config = self.config
        stem = config.scaled(config.stem_width)
        x = nn.relu(self.rep_conv("stem", stem, branches=(KxK(3),), strides=2, padding=1)(x, train))
        outputs, number = [], 0
        for stage, rows in enumerate(config.rows, 1):
            for index, row in enumerate(rows):
                if row.strides != 1:
                    outputs.append(x)
                x = GhostBottleneckV3(
                    config.scaled(row.hidden),
                    config.scaled(row.features),
                    kernel_size=row.kernel_size,
                    strides=row.strides,
                    squeeze_excite=row.squeeze_excite,
                    copies=config.copies,
                    gated=number >= config.gated_from,
                    **self.common,
                    name=f"stage{stage}_block{index}",
                )(x, train)
                number += 1
        if features:
            return (*outputs, x)
        width = config.scaled(config.rows[-1][-1].hidden)
        x = nn.relu(self.rep_conv("last", width, branches=(KxK(1),))(x, train))
        return self.hidden_head(x.mean(axis=(-3, -2)), config.head_width, config.dropout, train)


WIDTHS = (0.5, 1.0, 1.3, 1.6)

CONFIGS = {f"ghostnetv3_{round(100 * width):03}": GhostNetV3Config(width) for width in WIDTHS}

for _name, _sizes in CONFIGS.items():
    register_model(_name, GhostNetV3, _sizes)
