"""RepGhostNet: a stem, RepGhost bottlenecks, a pointwise convolution, a head of two layers."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax

from repjax.blocks.repconv import RepConv
from repjax.blocks.repghost import RepGhostBottleneck
from repjax.blocks.squeeze_excite import rounded_width
from repjax.branches import KxK
from repjax.models.bottleneck_row import Row
from repjax.models.initializers import uniform_kernel
from repjax.models.network import Network, Preprocessing
from repjax.models.registry import register_model

PREPROCESSING = Preprocessing(interpolation="bicubic")

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
class RepGhostConfig:
    """Sizes of a RepGhostNet.

    Args:
        width: all channels are multiplied by it, then rounded to multiples of 4.
        rows: the bottlenecks, in stages.
        stem_width: channels of the stem at width 1.
        head_width: channels between the two layers of the head, whatever the width.
        shortcut: whether bottlenecks add an input that could be added as it is.
        norm_branch: whether the depthwise convolutions have a norm of their input beside them.
        identity_branch: whether they have their input itself beside them.
        dropout: rate before the last layer.
        preprocessing: of the images that published weights were trained on.
    """

    width: float = 1.0
    rows: tuple[tuple[Row, ...], ...] = ROWS
    stem_width: int = 16
    head_width: int = 1280
    shortcut: bool = True
    norm_branch: bool = True
    identity_branch: bool = False
    dropout: float = 0.2
    preprocessing: Preprocessing = PREPROCESSING

    def scaled(self, channels: float) -> int:
        """Channels times the width, a multiple of 4."""
        return rounded_width(channels * self.width, 4)


class RepGhostNet(Network):
    """RepGhostNet: stem, bottlenecks, pointwise convolution, mean, two linear layers.

    `features` are the outputs of the stem and of the stages before the next strides.

    Args:
        config: sizes; `CONFIGS` has the published ones.

    The other arguments are those of `Network`.

    Source: Chen et al., RepGhost: A Hardware-Efficient Ghost Module via
    Re-parameterization, arXiv 2211.06088, 2022.

    Example:
        >>> import jax.numpy as jnp
        >>> model = RepGhostNet(config=RepGhostConfig(width=0.5), num_classes=5)
        >>> shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((32, 32, 3)))
        >>> shapes["params"]["head"]["kernel"].shape
        (1280, 5)
    """

    config: RepGhostConfig = RepGhostConfig()

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool = False, *, features: bool = False
    ) -> jax.Array | tuple[jax.Array, ...]:
        """Images (batch..., height, width, channels) to logits, or to the stages' outputs."""
        self.check(x)
        config = self.config
        x = self._conv("stem", config.scaled(config.stem_width), 3, strides=2)(x, train)
        x = nn.relu(x)
        outputs = []
        for stage, rows in enumerate(config.rows, 1):
            for index, row in enumerate(rows):
                if row.strides != 1:
                    outputs.append(x)
                x = RepGhostBottleneck(
                    config.scaled(row.hidden),
                    config.scaled(row.features),
                    kernel_size=row.kernel_size,
                    strides=row.strides,
                    squeeze_excite=row.squeeze_excite,
                    shortcut=config.shortcut,
                    norm_branch=config.norm_branch,
                    identity_branch=config.identity_branch,
                    **self.common,
                    name=f"stage{stage}_block{index}",
                )(x, train)
        if features:
            return (*outputs, x)
        width = config.scaled(2 * config.rows[-1][-1].hidden)
        x = nn.relu(self._conv("last", width, 1)(x, train)).mean(axis=(-3, -2))
        return self.hidden_head(x, config.head_width, config.dropout, train)

    def _conv(self, name: str, width: int, size: int, strides: int = 1) -> RepConv:
        return RepConv(
            width,
            branches=(KxK(size),),
            strides=strides,
            padding=size // 2,
            kernel_init=uniform_kernel,
            **self.common,
            name=name,
        )


WIDTHS = (0.5, 0.58, 0.8, 1.0, 1.11, 1.3, 1.5, 2.0)

CONFIGS = {f"repghostnet_{round(100 * width):03}": RepGhostConfig(width) for width in WIDTHS}

for _name, _sizes in CONFIGS.items():
    register_model(_name, RepGhostNet, _sizes)
