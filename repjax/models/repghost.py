"""RepGhostNet: a stem, RepGhost bottlenecks, a pointwise convolution, a head of two layers."""

from __future__ import annotations

import dataclasses

from repjax.blocks.repghost import RepGhostBottleneck
from repjax.models.bottlenecks import BottleneckConfig, BottleneckNetwork, Row
from repjax.models.registry import register_model

ROWS = (
    (Row(3, 8, 16),),
    (Row(3, 24, 24, 0, 2),),
    (Row(3, 36, 24),),
    (Row(5, 36, 40, 0.25, 2),),
    (Row(5, 60, 40, 0.25),),
    (Row(3, 120, 80, 0, 2),),
    (Row(3, 100, 80), *(Row(3, 120, 80),) * 2, *(Row(3, h, 112, 0.25) for h in (240, 336))),
    (Row(5, 336, 160, 0.25, 2),),
    (Row(5, 480, 160), Row(5, 480, 160, 0.25)) * 2,
)


@dataclasses.dataclass(frozen=True)
class RepGhostConfig(BottleneckConfig):
    """Sizes of a RepGhostNet.

    Args:
        shortcut: whether bottlenecks add an input that could be added as it is.
        norm_branch: whether the depthwise convolutions have a norm of their input beside them.
        identity_branch: whether they have their input itself beside them.

    The other arguments are those of `BottleneckConfig`.
    """

    rows: tuple[tuple[Row, ...], ...] = ROWS
    shortcut: bool = True
    norm_branch: bool = True
    identity_branch: bool = False


class RepGhostNet(BottleneckNetwork):
    """RepGhostNet: stem, bottlenecks, pointwise convolution, mean, two linear layers.

    `features` are the outputs of the stem and of the stages before the next strides.

    Args:
        config: sizes; `CONFIGS` has the published ones.

    The other arguments are those of `Network`.

    Source: Chen et al., RepGhost: A Hardware-Efficient Ghost Module via
    Re-parameterization, arXiv 2211.06088, 2022.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> model = RepGhostNet(config=RepGhostConfig(width=0.5), num_classes=5)
        >>> shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((32, 32, 3)))
        >>> shapes["params"]["head"]["kernel"].shape
        (1280, 5)
    """

    config: RepGhostConfig = RepGhostConfig()

    def bottleneck(self, name: str, row: Row, number: int) -> RepGhostBottleneck:
        """The bottleneck of a row."""
        config = self.config
        return RepGhostBottleneck(
            config.scaled(row.hidden),
            config.scaled(row.features),
            kernel_size=row.kernel_size,
            strides=row.strides,
            squeeze_excite=row.squeeze_excite,
            shortcut=config.shortcut,
            norm_branch=config.norm_branch,
            identity_branch=config.identity_branch,
            **self.common,
            name=name,
        )

    @property
    def last_width(self) -> float:
        """Channels of the last convolution at width 1."""
        return 2 * self.config.rows[-1][-1].hidden


WIDTHS = (0.5, 0.58, 0.8, 1.0, 1.11, 1.3, 1.5, 2.0)

CONFIGS = {f"repghostnet_{round(100 * width):03}": RepGhostConfig(width) for width in WIDTHS}

for _name, _sizes in CONFIGS.items():
    register_model(_name, RepGhostNet, _sizes)
