"""Names of FastViT weights: the original repository and timm."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from repjax.blocks.fastvit import PatchEmbed, RepCPE, RepMixer
from repjax.blocks.fastvit_stages import AttentionBlock, RepMixerBlock
from repjax.models.fastvit import FastViT
from repjax.torch.names import LINEAR, POINTWISE, Names, Replacement, register_names
from repjax.torch.names_mobileone import block_rules


@dataclasses.dataclass(frozen=True)
class Words:
    """The names that one naming gives to the parts of a FastViT.

    Args:
        mixed: the largest convolution of a mixer or MobileOne block.
        pointwise: the 1x1 convolution beside it.
        identity: the norm of the input beside it.
        large: the large kernel of a patch embedding.
        fused_large: the same in deploy form.
        feed_forward: the feed-forward network.
        position: the positional encoding.
        scale: the layer scale, with a place for its number.
        reduce: the first map of the squeeze-excite.
        expand: the second map of the squeeze-excite.
    """

    mixed: str
    pointwise: str
    identity: str
    large: str
    fused_large: str
    feed_forward: str
    position: str
    scale: str
    reduce: str
    expand: str


ORIGINAL = Words(
    mixed="rbr_conv",
    pointwise="rbr_scale",
    identity="rbr_skip",
    large="lkb_origin",
    fused_large="lkb_reparam",
    feed_forward="convffn",
    position="pe",
    scale="layer_scale{}",
    reduce="se.reduce",
    expand="se.expand",
)
TIMM = Words(
    mixed="conv_kxk",
    pointwise="conv_scale",
    identity="identity",
    large="large_conv",
    fused_large="reparam_conv",
    feed_forward="mlp",
    position="pos_enc",
    scale="layer_scale{}.gamma",
    reduce="se.fc1",
    expand="se.fc2",
)


def mixer_rules(words: Words) -> dict[str, str]:
    """Rules of a `RepMixer`: its 1x1 branch is the large one where nothing is larger."""
    scaled, bare = r"conv/y=identity\+scale[^/]*/sum", r"conv/y=identity\+norm[^/]*"
    only1x1 = r"conv/y=identity\+(?:scale\()?norm\(conv1x1\)[^/]*(?:/sum)?"
    either = r"conv/y=identity[^/]*(?:/sum)?"
    return {
        rf"{scaled}/scale": words.scale.format(""),
        rf"{scaled}/identity_0/norm": f"mixer.{words.identity}",
        rf"{scaled}/identity_1/norm": f"norm.{words.identity}",
        rf"{bare}/identity_1/norm": f"mixer.{words.identity}",
        rf"{bare}/identity_2/norm": f"norm.{words.identity}",
        rf"{only1x1}/conv1x1/norm": f"mixer.{words.mixed}.0.bn",
        rf"{only1x1}/conv1x1": f"mixer.{words.mixed}.0.conv",
        rf"{either}/conv1x1/norm": f"mixer.{words.pointwise}.bn",
        rf"{either}/conv1x1": f"mixer.{words.pointwise}.conv",
        rf"{either}/conv\d+x\d+/norm": f"mixer.{words.mixed}.0.bn",
        rf"{either}/conv\d+x\d+": f"mixer.{words.mixed}.0.conv",
    }


def patch_rules(words: Words) -> dict[str, str]:
    """Rules of a `PatchEmbed`: the first of its two large kernels is the larger."""
    first = r"large_kernel/conv/y=(?:norm\((conv\d+x\d+)\)\+[^/]*/\1|2\*[^/]*/conv\d+x\d+_0)"
    return {
        rf"{first}/norm": f"proj.0.{words.large}.bn",
        first: f"proj.0.{words.large}.conv",
        r"large_kernel/conv/y=[^/]*/conv[^/]*/norm": "proj.0.small_conv.bn",
        r"large_kernel/conv/y=[^/]*/conv[^/]*": "proj.0.small_conv.conv",
        r"large_kernel/conv": f"proj.0.{words.fused_large}",
        r"pointwise": "proj.1",
    }


def metaformer_rules(words: Words, scale: str = "") -> dict[str, str]:
    """Rules of a `RepMixerBlock`, or with numbers on its scales of an `AttentionBlock`."""
    return {
        r"token_mixer": "token_mixer",
        r"feed_forward/depthwise/y=[^/]*/norm": f"{words.feed_forward}.conv.bn",
        r"feed_forward/depthwise(?:/y=[^/]*)?": f"{words.feed_forward}.conv.conv",
        r"feed_forward/pointwise1": f"{words.feed_forward}.fc1",
        r"feed_forward/pointwise2/y=[^/]*/scale": words.scale.format(scale),
        r"feed_forward/pointwise2(?:/y=[^/]*)?": f"{words.feed_forward}.fc2",
        r"norm": "norm",
        r"query_key_value/y=[^/]*/norm": "norm",
        r"query_key_value/y=[^/]*/identity/norm": "norm",
        r"query_key_value(?:/y=[^/]*/conv1x1|/y=conv1x1)?": "token_mixer.qkv",
        r"project/y=[^/]*/scale": words.scale.format("_1"),
        r"project(?:/y=[^/]*)?": "token_mixer.proj",
    }


def position_rules(words: Words) -> dict[str, str]:
    """Rules of a `RepCPE`."""
    return {r"conv/y=conv\d+x\d+\[bias\]\+identity/conv\d+x\d+": words.position}


def every_rule(words: Words) -> dict[str, str]:
    """Rules of all blocks, those of special equations first."""
    mobileone = block_rules(
        words.mixed, words.pointwise, words.identity, words.reduce, words.expand
    )
    return {
        **position_rules(words),
        **mixer_rules(words),
        **patch_rules(words),
        **metaformer_rules(words),
        **mobileone,
    }


def names(words: Words, rules: Mapping[str, Replacement]) -> Names:
    """A table whose deploy form keeps the norms and layer scales that ours folds."""
    prefix = r"((?:.*\.)?)"
    second = rf"\1{words.feed_forward}.fc2"
    numbered = {"": second, "_1": r"\1token_mixer.proj", "_2": second}
    scales = {
        prefix + re.escape(words.scale.format(number)): conv for number, conv in numbered.items()
    }
    return Names(
        rules,
        kept_norms={rf"({prefix}{words.feed_forward}\.conv)\.conv": r"\1.bn"},
        norms_in_front={rf"{prefix}norm": r"\1token_mixer.qkv"},
        kept_scales=scales,
        shapes={
            rf"{prefix}{words.feed_forward}\.fc1\.weight": POINTWISE,
            rf"{prefix}token_mixer\.(?:qkv|proj)\.weight": LINEAR,
            **dict.fromkeys(scales, (0, 1, 1)),
        },
    )


@dataclasses.dataclass(frozen=True)
class Stage:
    """Where the parts of one stage lie in the state dict.

    Args:
        blocks: its blocks, without the number of the block.
        downsample: its patch embedding.
        position: its positional encoding.
    """

    blocks: str
    downsample: str
    position: str


def network(words: Words, model: FastViT, stages: list[Stage], **ends: str) -> Names:
    """A table for a network, given its stages, its stem, its last block and head."""
    rules: dict[str, Replacement] = {r"stem(\d)": rf"{ends['stem']}.\1"}
    mixers = model.config.token_mixers
    for number, (stage, mixer) in enumerate(zip(stages, mixers, strict=True), 1):
        name, block = f"stage{number}", rf"{stage.blocks}.\1"
        if mixer == "attention":
            second = rf"{block}.{words.scale.format('_2')}"
            rules[rf"{name}_block(\d+)/feed_forward/pointwise2/y=[^/]*/scale"] = second
        rules[rf"{name}_block(\d+)"] = block
        for linear, ours in ((words.reduce, "reduce"), (words.expand, "expand")):
            gate = f"{stage.downsample}.proj.0.{linear}"
            rules[f"{name}_downsample/squeeze_excite/{ours}"] = gate
        rules[f"{name}_downsample"] = stage.downsample
        rules[f"{name}_position"] = stage.position
    rules |= {"last": ends["last"], "head": ends["head"]}
    return names(words, rules | every_rule(words))


def original(model: FastViT) -> Names:
    """Stages, patch embeddings and positional encodings are numbered through."""
    config = model.config
    number = 0
    stages: list[Stage] = []
    for stage in range(len(config.depths)):
        downsample = number
        position = downsample + config.downsampled(stage)
        number = position + (config.position_kernels[stage] is not None)
        stages.append(Stage(f"network.{number}", f"network.{downsample}", f"network.{position}"))
        number += 1
    return network(ORIGINAL, model, stages, stem="patch_embed", last="conv_exp", head="head")


def timm(model: FastViT) -> Names:
    """Every stage holds its patch embedding, positional encoding and blocks."""
    parents = [f"stages.{number}" for number in range(len(model.config.depths))]
    stages = [Stage(f"{p}.blocks", f"{p}.downsample", f"{p}.pos_emb") for p in parents]
    return network(TIMM, model, stages, stem="stem", last="final_conv", head="head.fc")


register_names(FastViT, original=original, timm=timm)
for _module, _rules in (
    (RepMixer, mixer_rules),
    (RepCPE, position_rules),
    (PatchEmbed, every_rule),
    (RepMixerBlock, every_rule),
    (AttentionBlock, lambda words: every_rule(words) | metaformer_rules(words, "_2")),
):
    _fused = {"conv": "reparam_conv"}
    register_names(
        _module,
        original=names(ORIGINAL, _rules(ORIGINAL) | _fused),
        timm=names(TIMM, _rules(TIMM) | _fused),
    )
