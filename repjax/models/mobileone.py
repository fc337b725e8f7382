"""MobileOne: pairs of a depthwise 3x3 and a pointwise block in five stages, a linear head."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax

from repjax.blocks.block import ConvBlock
from repjax.blocks.mobileone import MobileOneBlock
from repjax.blocks.plain import PlainBlock
from repjax.models.initializers import uniform_kernel
from repjax.models.network import IMAGENET, Preprocessing
from repjax.models.plain_form import NetworkWithPlainForm
from repjax.models.registry import register_model
from repjax.models.sizes import gate_width, require_stages, widths


@dataclasses.dataclass(frozen=True)
class MobileOneConfig:
    """Sizes of a MobileOne.

    Args:
        depths: pairs of blocks per stage, without the stem.
        widths: channels per stage.
        stem_width: channels of the stem; None is the first stage's, 64 at most.
        stem_strides: of the stem; 1 for small images.
        strides: of each stage's first block; None is 2 for all.
        kernel_size: of the depthwise blocks and the stem.
        copies: branches of a block's largest kernel; the stem has one.
        squeeze_excite_blocks: how many pairs at the end of each stage have squeeze-excites.
        squeeze_excite: their hidden channels as a fraction.
        squeeze_excite_divisor: 0 rounds these down to a whole number; otherwise they are
            rounded to a multiple (timm's way, with 8).
        preprocessing: of the images that published weights were trained on.
    """

    depths: tuple[int, ...] = (2, 8, 10, 1)
    widths: tuple[int, ...] = (48, 128, 256, 1024)
    stem_width: int | None = None
    stem_strides: int = 2
    strides: tuple[int, ...] | None = None
    kernel_size: int = 3
    copies: int = 1
    squeeze_excite_blocks: tuple[int, ...] = (0, 0, 0, 0)
    squeeze_excite: float = 1 / 16
    squeeze_excite_divisor: int = 0
    preprocessing: Preprocessing = IMAGENET

    def __post_init__(self) -> None:
        require_stages(self, "squeeze_excite_blocks", *(["strides"] if self.strides else []))


class MobileOne(NetworkWithPlainForm):
    """MobileOne: stem and stages, each beginning with strides of 2 or others; mean; linear head.

    Args:
        config: sizes; `CONFIGS` has the published ones.

    The other arguments are those of `NetworkWithPlainForm`.

    Source: Vasu et al., MobileOne: An Improved One Millisecond Mobile Backbone, CVPR 2023.

    Example:
        >>> import jax.numpy as jnp, repjax
        >>> model = MobileOne(config=MobileOneConfig((1, 1, 1, 1), (4, 4, 8, 8)), num_classes=5)
        >>> x = jnp.ones((32, 32, 3))
        >>> variables = jax.eval_shape(model.init, jax.random.key(0), x)
        >>> deployed = jax.eval_shape(repjax.fuse_params, variables)
        >>> jax.eval_shape(model.deploy().apply, deployed, x).shape
        (5,)
    """

    config: MobileOneConfig = MobileOneConfig()

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool = False, *, features: bool = False
    ) -> jax.Array | tuple[jax.Array, ...]:
        """Images (batch..., height, width, channels) to logits, or to the stages' outputs."""
        self.check(x)
        config = self.config
        size, divisor = config.kernel_size, config.squeeze_excite_divisor

        kind = self.block_class(MobileOneBlock)
        branches = {} if kind is PlainBlock else {"copies": config.copies}

        def block(name: str, width: int, size: int, **more: Any) -> ConvBlock:
            return kind(width, size, kernel_init=uniform_kernel, name=name, **more, **self.common)

        stem = config.stem_width or min(64, config.widths[0])
        x = block("stem", stem, size, strides=config.stem_strides)(x, train)
        outputs = [x]
        strides = config.strides or (2,) * len(config.depths)
        gates = config.squeeze_excite_blocks
        stages = zip(config.depths, config.widths, gates, strides, strict=True)
        for stage, (depth, width, gated, step) in enumerate(stages, 1):
            for index in range(depth):
                fraction = config.squeeze_excite if index >= depth - gated else 0.0
                inputs = x.shape[-1]
                x = block(
                    f"stage{stage}_block{index}_depthwise",
                    inputs,
                    size,
                    strides=1 if index else step,
                    groups=inputs,
                    squeeze_excite=gate_width(inputs * fraction, divisor),
                    **branches,
                )(x, train)
                x = block(
                    f"stage{stage}_block{index}_pointwise",
                    width,
                    1,
                    squeeze_excite=gate_width(width * fraction, divisor),
                    **branches,
                )(x, train)
            outputs.append(x)
        return tuple(outputs) if features else self.linear_head(x.mean(axis=(-3, -2)))


_LARGE = MobileOneConfig(preprocessing=dataclasses.replace(IMAGENET, crop=0.9))

CONFIGS = {
    "mobileone_s0": MobileOneConfig(widths=widths(0.75, 1, 1, 2), copies=4),
    "mobileone_s1": dataclasses.replace(_LARGE, widths=widths(1.5, 1.5, 2, 2.5)),
    "mobileone_s2": dataclasses.replace(_LARGE, widths=widths(1.5, 2, 2.5, 4)),
    "mobileone_s3": dataclasses.replace(_LARGE, widths=widths(2, 2.5, 3, 4)),
    "mobileone_s4": dataclasses.replace(
        _LARGE, widths=widths(3, 3.5, 3.5, 4), squeeze_excite_blocks=(0, 0, 5, 1)
    ),
}

for _name, _sizes in CONFIGS.items():
    register_model(_name, MobileOne, _sizes)
