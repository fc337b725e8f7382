"""Names of RepViT weights: the original repository and timm."""

from __future__ import annotations

from repjax.blocks.repvit import RepVGGDW, RepViTBlock
from repjax.models.repvit import RepViT
from repjax.torch.names import Names, Replacement, register_names

CONV_NORM = {r"y=norm\([^/]*\)/norm": "bn", r"y=norm\([^/]*\)": "c"}
TOKEN_MIXER = {
    r"conv/y=norm\(norm[^/]*/norm": "bn",
    r"conv/y=[^/]*/conv1x1/norm": "conv1.bn",
    r"conv/y=norm\(conv\d+x\d+\)[^/]*/conv1x1": "conv1.c",
    r"conv/y=[^/]*/conv1x1": "conv1",
    r"conv/y=[^/]*/conv\d+x\d+/norm": "conv.bn",
    r"conv/y=[^/]*/conv\d+x\d+": "conv.c",
    r"conv": "",
}

ORIGINAL_BLOCK = {
    r"token_mixer": "token_mixer.0",
    r"depthwise": "token_mixer.0",
    r"squeeze_excite/reduce": "token_mixer.1.fc1",
    r"squeeze_excite/expand": "token_mixer.1.fc2",
    r"pointwise": "token_mixer.2",
    r"channel_mixer1": "channel_mixer.m.0",
    r"channel_mixer2": "channel_mixer.m.2",
    **TOKEN_MIXER,
    **CONV_NORM,
}


def heads(first: str, second: str, deployed: str) -> dict[str, str]:
    """Rules of the head or heads."""
    return {
        r"head/mean_of_norm_linears/head0/norm": f"{first}.bn",
        r"head/mean_of_norm_linears/head0": f"{first}.l",
        r"head/mean_of_norm_linears/head1/norm": f"{second}.bn",
        r"head/mean_of_norm_linears/head1": f"{second}.l",
        r"head": deployed,
    }


def original(model: RepViT) -> Names:
    """The stem and all blocks are numbered through."""
    rules: dict[str, Replacement] = {r"stem1": "features.0.0", r"stem2": "features.0.2"}
    rules |= {name: f"features.{n}" for n, name in enumerate(model.config.names(), 1)}
    rules |= heads("classifier.classifier", "classifier.classifier_dist", "classifier")
    return Names(rules | ORIGINAL_BLOCK)


def timm(model: RepViT) -> Names:
    """A down-sampling holds the block before the strides and the block with them."""
    rules: dict[str, Replacement] = {r"stem1": "stem.conv1", r"stem2": "stem.conv2"}
    config = model.config
    stage, index = 0, 0
    blocks = list(zip(config.names(), config.blocks(), strict=True))
    for number, (name, row) in enumerate(blocks):
        following = blocks[number + 1][1] if number + 1 < len(blocks) else None
        if number and row.strides != 1:
            stage, index = stage + 1, 0
            place = f"stages.{stage}.downsample"
            rules[f"{name}/depthwise"] = f"{place}.spatial_downsample"
            rules[f"{name}/pointwise"] = f"{place}.channel_downsample"
            rules[rf"{name}/channel_mixer(\d)"] = rf"{place}.ffn.conv\1"
        elif following is not None and following.strides != 1:
            rules[name] = f"stages.{stage + 1}.downsample.pre_block"
        else:
            rules[name] = f"stages.{stage}.blocks.{index}"
            index += 1
    rules |= {
        r"token_mixer": "token_mixer",
        r"squeeze_excite/reduce": "se.fc1",
        r"squeeze_excite/expand": "se.fc2",
        r"channel_mixer(\d)": r"channel_mixer.conv\1",
        **heads("head.head", "head.head_dist", "head"),
    }
    return Names(rules | TOKEN_MIXER | CONV_NORM)


register_names(RepViT, original=original, timm=timm)
register_names(RepViTBlock, original=Names(ORIGINAL_BLOCK))
register_names(RepVGGDW, original=Names(TOKEN_MIXER), timm=Names(TOKEN_MIXER))
