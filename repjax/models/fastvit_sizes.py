"""Sizes of FastViT, those of the image towers of MobileCLIP among them."""

from __future__ import annotations

import dataclasses

from repjax.models.network import Preprocessing
from repjax.models.sizes import doubled_widths, gate_width, require_stages

PREPROCESSING = Preprocessing(input_size=(256, 256), crop=0.9, interpolation="bicubic")


@dataclasses.dataclass(frozen=True)
class FastViTConfig:
    """Sizes of a FastViT.

    Args:
        depths: blocks per stage.
        widths: channels per stage; the stem has those of the first.
        ratios: hidden channels of the feed-forward networks per channel, per stage.
        token_mixers: "repmixer" or "attention", per stage.
        position_kernels: size of the positional encoding before the blocks of a stage; None
            leaves it out.
        downsamples: whether a stage begins with a patch embedding; one that changes the
            number of channels always does.
        mixer_kernel: kernel size of `RepMixer`.
        patch_kernel: kernel size of the patch embeddings.
        patch_strides: their strides.
        patch_squeeze_excite: whether there is a gate in them, per stage.
        patch_activation: whether there is a GELU in them; the published networks have none.
        stem_scale: whether the blocks of the stem have 1x1 branches.
        attention_norm: "batch", which folds, or "layer", which stays; in front of attention.
        layer_scale: initial value of all layer scales; None leaves them out.
        head_features: channels of each head of the attention.
        head_ratio: channels of the last convolution per channel of the last stage.
        squeeze_excite_divisor: 0 rounds the hidden channels of its gate, a sixteenth, down to
            a whole number; otherwise to the nearest multiple (timm's way, with 1).
        drop_path: rate of stochastic depth of the last block, rising linearly from 0.
        preprocessing: of the images that published weights were trained on.
    """

    depths: tuple[int, ...] = (2, 2, 6, 2)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    ratios: tuple[float, ...] = (4, 4, 4, 4)
    token_mixers: tuple[str, ...] = ("repmixer",) * 4
    position_kernels: tuple[int | None, ...] = (None,) * 4
    downsamples: tuple[bool, ...] = (False, True, True, True)
    mixer_kernel: int = 3
    patch_kernel: int = 7
    patch_strides: int = 2
    patch_squeeze_excite: tuple[bool, ...] = (False,) * 4
    patch_activation: bool = False
    stem_scale: bool = True
    attention_norm: str = "batch"
    layer_scale: float | None = 1e-5
    head_features: int = 32
    head_ratio: float = 2.0
    squeeze_excite_divisor: int = 0
    drop_path: float = 0.0
    preprocessing: Preprocessing = PREPROCESSING

    def __post_init__(self) -> None:
        per_stage = ("ratios", "token_mixers", "position_kernels", "downsamples")
        require_stages(self, *per_stage, "patch_squeeze_excite")

    def downsampled(self, stage: int) -> bool:
        """Whether the stage of that number, from 0, begins with a patch embedding."""
        before = self.widths[max(stage - 1, 0)]
        return self.downsamples[stage] or before != self.widths[stage]

    @property
    def head_width(self) -> int:
        """Channels of the last convolution."""
        return int(self.widths[-1] * self.head_ratio)

    @property
    def squeeze_excite(self) -> int:
        """Hidden channels of its gate."""
        return gate_width(self.head_width / 16, self.squeeze_excite_divisor)


_TINY = FastViTConfig(ratios=(3, 3, 3, 3))
_ATTENTIVE = FastViTConfig(
    token_mixers=("repmixer", "repmixer", "repmixer", "attention"),
    position_kernels=(None, None, None, 7),
)
# As the authors published it. timm has another crop (0.9) and layer scales that begin at 1e-5.
_DEEP = dataclasses.replace(
    _ATTENTIVE,
    depths=(6, 6, 18, 6),
    layer_scale=1e-6,
    preprocessing=dataclasses.replace(PREPROCESSING, crop=0.95),
)

_CLIP = dataclasses.replace(
    _ATTENTIVE,
    ratios=(3, 3, 3, 3),
    patch_squeeze_excite=(False, False, True, True),
    patch_activation=True,
    preprocessing=dataclasses.replace(
        PREPROCESSING, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), crop=0.95
    ),
)
_LARGE_CLIP = FastViTConfig(
    depths=(2, 12, 24, 4, 2),
    widths=doubled_widths(96, 5),
    ratios=(4,) * 5,
    token_mixers=("repmixer", "repmixer", "repmixer", "attention", "attention"),
    position_kernels=(None, None, None, 7, 7),
    downsamples=(False, True, True, True, True),
    patch_squeeze_excite=(False,) * 5,
    patch_activation=True,
    stem_scale=False,
    attention_norm="layer",
    preprocessing=dataclasses.replace(
        PREPROCESSING,
        mean=(0.48145466, 0.4578275, 0.40821073),
        std=(0.26862954, 0.26130258, 0.27577711),
        crop=0.95,
    ),
)

CONFIGS = {
    "fastvit_t8": dataclasses.replace(_TINY, depths=(2, 2, 4, 2), widths=doubled_widths(48)),
    "fastvit_t12": _TINY,
    "fastvit_s12": FastViTConfig(),
    "fastvit_sa12": _ATTENTIVE,
    "fastvit_sa24": dataclasses.replace(_ATTENTIVE, depths=(4, 4, 12, 4)),
    "fastvit_sa36": _DEEP,
    "fastvit_ma36": dataclasses.replace(_DEEP, widths=doubled_widths(76)),
    # the image towers of MobileCLIP: 512 outputs, the last two 768
    "fastvit_mci0": dataclasses.replace(_CLIP, depths=(2, 6, 10, 2)),
    "fastvit_mci1": dataclasses.replace(_CLIP, depths=(4, 12, 20, 4)),
    "fastvit_mci2": dataclasses.replace(_CLIP, depths=(4, 12, 24, 4), widths=doubled_widths(80)),
    "fastvit_mci3": _LARGE_CLIP,
    "fastvit_mci4": dataclasses.replace(
        _LARGE_CLIP, depths=(2, 12, 24, 4, 4), widths=doubled_widths(128, 5)
    ),
}
