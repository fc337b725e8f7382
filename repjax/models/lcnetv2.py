"""PP-LCNetV2: a stem, four stages of depthwise and pointwise convolutions, a head of two layers."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax

from repjax.blocks.lcnetv2 import LCNetV2Block
from repjax.blocks.squeeze_excite import rounded_width
from repjax.models.network import IMAGENET_BICUBIC, Network, Preprocessing
from repjax.models.registry import register_model
from repjax.models.sizes import require_stages


@dataclasses.dataclass(frozen=True)
class LCNetV2Config:
    """Sizes of a PP-LCNetV2.

    Args:
        width: all channels but those of the head are multiplied by it, then rounded to
            multiples of 8.
        depths: blocks per stage; the first of each has strides of 2.
        widths: channels per stage at width 1.
        kernel_sizes: of the largest depthwise convolutions, per stage.
        multi_scale: whether smaller kernels stand beside them, per stage.
        squeeze_excite: hidden channels of the squeeze-excites as a fraction, per stage.
        pointwise_ratios: channels between two pointwise convolutions as a fraction, per
            stage; 0 leaves one.
        shortcuts: whether inputs that can be added are added, per stage.
        stem_width: channels of the stem's first convolution at width 1; its block has twice
            as many.
        head_width: channels between the two layers of the head.
        dropout: rate before the last layer.
        preprocessing: of the images that published weights were trained on.
    """

    width: float = 1.0
    depths: tuple[int, ...] = (2, 2, 6, 2)
    widths: tuple[int, ...] = (128, 256, 512, 1024)
    kernel_sizes: tuple[int, ...] = (3, 3, 5, 5)
    multi_scale: tuple[bool, ...] = (False, False, True, True)
    squeeze_excite: tuple[float, ...] = (0.0, 0.0, 0.25, 0.0)
    pointwise_ratios: tuple[float, ...] = (0.0, 0.0, 0.5, 0.0)
    shortcuts: tuple[bool, ...] = (False, False, False, True)
    stem_width: int = 32
    head_width: int = 1280
    dropout: float = 0.2
    preprocessing: Preprocessing = IMAGENET_BICUBIC

    def __post_init__(self) -> None:
        per_stage = ("kernel_sizes", "multi_scale", "squeeze_excite", "pointwise_ratios")
        require_stages(self, *per_stage, "shortcuts")

    def scaled(self, channels: float) -> int:
        """Channels times the width, a multiple of 8."""
        return rounded_width(channels * self.width, 8)


class LCNetV2(Network):
    """PP-LCNetV2: stem of a convolution and a block, four stages, mean, two linear layers.

    Args:
        config: sizes; `CONFIGS` has the published ones.

    The other arguments are those of `Network`.

    Source: PP-LCNetV2, PaddleClas, 2022; Cui et al., PP-LCNet: A Lightweight CPU
    Convolutional Neural Network, arXiv 2109.15099, 2021.

    Example:
        >>> import jax.numpy as jnp
        >>> model = LCNetV2(config=LCNetV2Config(0.25, (1, 1, 1, 1)), num_classes=5)
        >>> x = jnp.ones((64, 64, 3))
        >>> variables = jax.eval_shape(model.init, jax.random.key(0), x)
        >>> jax.eval_shape(model.apply, variables, x).shape
        (5,)
    """

    config: LCNetV2Config = LCNetV2Config()

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool = False, *, features: bool = False
    ) -> jax.Array | tuple[jax.Array, ...]:
        """Images (batch..., height, width, channels) to logits, or to the stages' outputs."""
        self.check(x)
        config = self.config
        stem = self.normed_conv("stem0", config.scaled(config.stem_width), 3, strides=2)
        width = config.scaled(2 * config.stem_width)
        x = LCNetV2Block(width, **self.common, name="stem1")(nn.relu(stem(x, train)), train)
        outputs = []
        for stage, depth in enumerate(config.depths):
            for index in range(depth):
                x = self._block(stage, index)(x, train)
            outputs.append(x)
        if features:
            return tuple(outputs)
        mean = x.mean(axis=(-3, -2))
        return self.hidden_head(mean, config.head_width, config.dropout, train, use_bias=False)

    def _block(self, stage: int, index: int) -> LCNetV2Block:
        config = self.config
        return LCNetV2Block(
            config.scaled(config.widths[stage]),
            kernel_size=config.kernel_sizes[stage],
            strides=1 if index else 2,
            multi_scale=config.multi_scale[stage],
            squeeze_excite=config.squeeze_excite[stage],
            pointwise_ratio=config.pointwise_ratios[stage],
            shortcut=config.shortcuts[stage],
            **self.common,
            name=f"stage{stage + 1}_block{index}",
        )


CONFIGS = {
    "lcnetv2_small": LCNetV2Config(0.75, (2, 2, 4, 2)),
    "lcnetv2_base": LCNetV2Config(),
    "lcnetv2_large": LCNetV2Config(1.25, (2, 2, 8, 2)),
}

for _name, _sizes in CONFIGS.items():
    register_model(_name, LCNetV2, _sizes)
