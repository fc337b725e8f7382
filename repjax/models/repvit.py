"""RepViT: a stem of two convolutions, one kind of block throughout, distilled heads."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax

from repjax.blocks.block import gelu
from repjax.blocks.repvit import NormLinears, RepViTBlock
from repjax.models.network import Network, Preprocessing
from repjax.models.registry import register_model
from repjax.models.sizes import doubled_widths, require_stages

PREPROCESSING = Preprocessing(crop=0.95, interpolation="bicubic")


@dataclasses.dataclass(frozen=True)
class Row:
    """One block of a RepViT; strides above 1 begin a stage.

    Args:
        features: as of `RepViTBlock`.
        strides: as of `RepViTBlock`.
        squeeze_excite: as of `RepViTBlock`.
        kernel_size: as of `RepViTBlock`.
        ratio: as of `RepViTBlock`.
    """

    features: int
    strides: int = 1
    squeeze_excite: bool = False
    kernel_size: int = 3
    ratio: float = 2


@dataclasses.dataclass(frozen=True)
class RepViTConfig:
    """Sizes of a RepViT.

    Args:
        depths: blocks per stage, without the one with strides that begins it and the one
            without a gate that stands before the next.
        widths: channels per stage; the stem has half of the first, then all.
        kernel_size: of the depthwise convolutions.
        ratios: hidden channels of the channel mixers per channel, per stage.
        rows: all blocks one by one, instead of the fields above.
        heads: 2 has a second head for distillation, which gives logits of its own while
            training; the two are averaged in inference.
        legacy: token mixers as in the first versions, see `RepVGGDW`.
        preprocessing: of the images that published weights were trained on.
    """

    depths: tuple[int, ...] = (2, 2, 14, 2)
    widths: tuple[int, ...] = (48, 96, 192, 384)
    kernel_size: int = 3
    ratios: tuple[float, ...] = (2, 2, 2, 2)
    rows: tuple[Row, ...] | None = None
    heads: int = 2
    legacy: bool = False
    preprocessing: Preprocessing = PREPROCESSING

    def __post_init__(self) -> None:
        require_stages(self, "ratios")

    def blocks(self) -> tuple[Row, ...]:
        """All blocks one by one."""
        if self.rows is not None:
            return self.rows
        rows: list[Row] = []
        sizes = zip(self.depths, self.widths, self.ratios, strict=True)
        for stage, (depth, width, ratio) in enumerate(sizes):
            if stage:
                rows += [Row(self.widths[stage - 1], 1, False, self.kernel_size, ratio)]
                rows += [Row(width, 2, False, self.kernel_size, ratio)]
            gates = [index % 2 == 0 for index in range(depth)]
            rows += [Row(width, 1, gate, self.kernel_size, ratio) for gate in gates]
        return tuple(rows)

    def names(self) -> tuple[str, ...]:
        """Names of the blocks: strides begin a stage."""
        names: list[str] = []
        stage, index = 1, 0
        for row in self.blocks():
            if row.strides != 1 and names:
                stage, index = stage + 1, 0
            names.append(f"stage{stage}_block{index}")
            index += 1
        return tuple(names)


class RepViT(Network):
    """RepViT: stem, blocks, mean, one or two heads that are averaged in inference.

    Args:
        config: sizes; `CONFIGS` has the published ones.

    The other arguments are those of `Network`.

    Source: Wang et al., RepViT: Revisiting Mobile CNN From ViT Perspective, CVPR 2024.

    Example:
        >>> config = RepViTConfig(depths=(1, 1), widths=(8, 16), ratios=(2, 2))
        >>> config.names()
        ('stage1_block0', 'stage1_block1', 'stage2_block0', 'stage2_block1')
        >>> import jax.numpy as jnp
        >>> model = RepViT(config=config, num_classes=5)
        >>> x = jnp.ones((32, 32, 3))
        >>> shapes = jax.eval_shape(model.deploy().init, jax.random.key(0), x)
        >>> shapes["params"]["head"]["kernel"].shape
        (16, 5)
    """

    config: RepViTConfig = RepViTConfig()

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, *, features: bool = False) -> Any:
        """Images (batch..., height, width, channels) to logits, or to the stages' outputs."""
        self.check(x)
        rows = self.config.blocks()
        width = rows[0].features
        x = gelu(self.normed_conv("stem1", width // 2, 3, strides=2)(x, train))
        x = self.normed_conv("stem2", width, 3, strides=2)(x, train)
        outputs: list[jax.Array] = []
        for number, (name, row) in enumerate(zip(self.config.names(), rows, strict=True)):
            if number and row.strides != 1:
                outputs.append(x)
            x = RepViTBlock(
                **dataclasses.asdict(row), legacy=self.config.legacy, **self.common, name=name
            )(x, train)
        if features:
            return (*outputs, x)
        head = NormLinears(self.num_classes, self.config.heads, **self.common, name="head")
        return head(x.mean(axis=(-3, -2)), train)


_SMALL = RepViTConfig()

_FIRST = dataclasses.replace(_SMALL, legacy=True)

CONFIGS = {
    "repvit_m1": _FIRST,
    "repvit_m2": dataclasses.replace(_FIRST, depths=(2, 2, 12, 2), widths=doubled_widths(64)),
    "repvit_m3": dataclasses.replace(_FIRST, depths=(4, 4, 18, 2), widths=doubled_widths(64)),
    "repvit_m0_9": _SMALL,
    "repvit_m1_0": dataclasses.replace(_SMALL, widths=doubled_widths(56)),
    "repvit_m1_1": RepViTConfig(depths=(2, 2, 12, 2), widths=doubled_widths(64)),
    "repvit_m1_5": RepViTConfig(depths=(4, 4, 24, 4), widths=doubled_widths(64)),
    "repvit_m2_3": RepViTConfig(depths=(6, 6, 34, 2), widths=doubled_widths(80)),
}

for _name, _sizes in CONFIGS.items():
    register_model(_name, RepViT, _sizes)
