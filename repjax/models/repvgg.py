"""RepVGG: a plain stack of RepVGG blocks in five stages, then a linear head."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax

from repjax.blocks.block import ConvBlock
from repjax.blocks.repvgg import RepVGGBlock
from repjax.models.initializers import uniform_kernel
from repjax.models.network import IMAGENET, Preprocessing
from repjax.models.plain_form import NetworkWithPlainForm
from repjax.models.registry import register_model
from repjax.models.sizes import gate_width, require_stages, widths


@dataclasses.dataclass(frozen=True)
class RepVGGConfig:
    """Sizes of a RepVGG.

    Args:
        depths: blocks per stage, without the stem.
        widths: channels per stage.
        stem_width: channels of the stem; None is the first stage's, 64 at most.
        stem_strides: of the stem; 1 for small images.
        strides: of each stage's first block; None is 2 for all.
        kernel_size: of every block.
        groups: (block, groups) pairs; blocks are counted through all stages from 1.
        squeeze_excite: hidden channels of the squeeze-excites as a fraction; 0 has none.
        squeeze_excite_divisor: 0 rounds these down to a whole number; otherwise they are
            rounded to a multiple (timm's way).
        square_window: of the squeeze-excites, see `SqueezeExcite`.
        preprocessing: of the images that published weights were trained on.
    """

    depths: tuple[int, ...] = (2, 4, 14, 1)
    widths: tuple[int, ...] = (48, 96, 192, 1280)
    stem_width: int | None = None
    stem_strides: int = 2
    strides: tuple[int, ...] | None = None
    kernel_size: int = 3
    groups: tuple[tuple[int, int], ...] = ()
    squeeze_excite: float = 0.0
    squeeze_excite_divisor: int = 0
    square_window: bool = False
    preprocessing: Preprocessing = IMAGENET

    def __post_init__(self) -> None:
        require_stages(self, *(["strides"] if self.strides else []))


class RepVGG(NetworkWithPlainForm):
    """RepVGG: stem and stages, each beginning with strides of 2 or others; mean; linear head.

    Args:
        config: sizes; `CONFIGS` has the published ones.

    The other arguments are those of `NetworkWithPlainForm`.

    Source: Ding et al., RepVGG: Making VGG-style ConvNets Great Again, CVPR 2021.

    Example:
        >>> import jax.numpy as jnp, repjax
        >>> model = RepVGG(config=RepVGGConfig((1, 1, 1, 1), (4, 4, 8, 8)), num_classes=5)
        >>> x = jnp.ones((32, 32, 3))
        >>> variables = jax.eval_shape(model.init, jax.random.key(0), x)
        >>> deployed = jax.eval_shape(repjax.fuse_params, variables)
        >>> jax.eval_shape(model.deploy().apply, deployed, x).shape
        (5,)
    """

    config: RepVGGConfig = RepVGGConfig()

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool = False, *, features: bool = False
    ) -> jax.Array | tuple[jax.Array, ...]:
        """Images (batch..., height, width, channels) to logits, or to the stages' outputs."""
        self.check(x)
        config = self.config
        groups = dict(config.groups)

        kind = self.block_class(RepVGGBlock)

        def block(name: str, width: int, strides: int, groups: int) -> ConvBlock:
            return kind(
                width,
                kernel_size=config.kernel_size,
                strides=strides,
                groups=groups,
                squeeze_excite=gate_width(
                    width * config.squeeze_excite, config.squeeze_excite_divisor
                ),
                square_window=config.square_window,
                kernel_init=uniform_kernel,
                name=name,
                **self.common,
            )

        stem = config.stem_width or min(64, config.widths[0])
        x = block("stem", stem, config.stem_strides, 1)(x, train)
        outputs = [x]
        number = 0
        strides = config.strides or (2,) * len(config.depths)
        stages = zip(config.depths, config.widths, strides, strict=True)
        for stage, (depth, width, step) in enumerate(stages, 1):
            for index in range(depth):
                number += 1
                name = f"stage{stage}_block{index}"
                x = block(name, width, 1 if index else step, groups.get(number, 1))(x, train)
            outputs.append(x)
        if features:
            return tuple(outputs)
        return self.linear_head(x.mean(axis=(-3, -2)))


def every_second(groups: int) -> tuple[tuple[int, int], ...]:
    """The published map: every second block from 2 to 26 has that many groups.

    Example:
        >>> every_second(4)[:3]
        ((2, 4), (4, 4), (6, 4))
    """
    return tuple((block, groups) for block in range(2, 27, 2))


def _config(
    depths: tuple[int, ...],
    multiplier: float,
    last: float,
    groups: int = 1,
    squeeze_excite: float = 0.0,
    preprocessing: Preprocessing = IMAGENET,
) -> RepVGGConfig:
    return RepVGGConfig(
        depths=depths,
        widths=widths(multiplier, multiplier, multiplier, last),
        groups=every_second(groups) if groups > 1 else (),
        squeeze_excite=squeeze_excite,
        preprocessing=preprocessing,
    )


A, B, D = (2, 4, 14, 1), (4, 6, 16, 1), (8, 14, 24, 1)

CONFIGS = {
    "repvgg_a0": _config(A, 0.75, 2.5),
    "repvgg_a1": _config(A, 1, 2.5),
    "repvgg_a2": _config(A, 1.5, 2.75),
    "repvgg_b0": _config(B, 1, 2.5),
    "repvgg_b1": _config(B, 2, 4),
    "repvgg_b1g2": _config(B, 2, 4, groups=2),
    "repvgg_b1g4": _config(B, 2, 4, groups=4),
    "repvgg_b2": _config(B, 2.5, 5),
    "repvgg_b2g2": _config(B, 2.5, 5, groups=2),
    "repvgg_b2g4": _config(B, 2.5, 5, groups=4),
    "repvgg_b3": _config(B, 3, 5),
    "repvgg_b3g2": _config(B, 3, 5, groups=2),
    "repvgg_b3g4": _config(B, 3, 5, groups=4),
    "repvgg_d2se": _config(
        D, 2.5, 5, squeeze_excite=1 / 16, preprocessing=Preprocessing((320, 320), crop=1.0)
    ),
}

for _name, _sizes in CONFIGS.items():
    register_model(_name, RepVGG, _sizes)
