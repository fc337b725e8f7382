"""GhostNetV3: a stem, ghost bottlenecks, a pointwise convolution, a head of two layers."""

from __future__ import annotations

import dataclasses

from repjax.blocks.ghostnetv3 import GhostBottleneckV3
from repjax.models.bottlenecks import BottleneckConfig, BottleneckNetwork, Row
from repjax.models.registry import register_model

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
class GhostNetV3Config(BottleneckConfig):
    """Sizes of a GhostNetV3.

    Args:
        copies: of the larger kernel of each sum.
        gated_from: number of the first bottleneck, from 0, that has a gate in its first module.

    The other arguments are those of `BottleneckConfig`.
    """

    rows: tuple[tuple[Row, ...], ...] = ROWS
    copies: int = 3
    gated_from: int = 2


class GhostNetV3(BottleneckNetwork):
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
        >>> import jax, jax.numpy as jnp
        >>> model = GhostNetV3(config=GhostNetV3Config(rows=ROWS[:3]), num_classes=5)
        >>> x = jnp.ones((32, 32, 3))
        >>> variables = jax.eval_shape(model.init, jax.random.key(0), x)
        >>> jax.eval_shape(model.apply, variables, x).shape
        (5,)
    """

    config: GhostNetV3Config = GhostNetV3Config()

    def bottleneck(self, name: str, row: Row, number: int) -> GhostBottleneckV3:
        """The bottleneck of a row."""
        config = self.config
        return GhostBottleneckV3(
            config.scaled(row.hidden),
            config.scaled(row.features),
            kernel_size=row.kernel_size,
            strides=row.strides,
            squeeze_excite=row.squeeze_excite,
            copies=config.copies,
            gated=number >= config.gated_from,
            **self.common,
            name=name,
        )


WIDTHS = (0.5, 1.0, 1.3, 1.6)

CONFIGS = {f"ghostnetv3_{round(100 * width):03}": GhostNetV3Config(width) for width in WIDTHS}

for _name, _sizes in CONFIGS.items():
    register_model(_name, GhostNetV3, _sizes)
