"""Names of PP-LCNetV2 weights: timm's; the official code is not PyTorch."""

from __future__ import annotations

import re

from repjax.blocks.lcnetv2 import LCNetV2Block
from repjax.models.lcnetv2 import LCNetV2
from repjax.torch.names import Names, Replacement, register_names
from repjax.torch.names_repghost import SHAPES, conv_norm

KEPT_NORMS = {r"((?:.*\.)?(?:dw_conv|pw_conv|pw_conv\.[01]|stem\.0))\.conv": r"\1.bn"}


def _number(match: re.Match[str]) -> int:
    """Kernels are numbered from the largest; each is two smaller than the one before."""
    return (int(match[1]) - int(match[2])) // 2


SEVERAL = r"depthwise/y=norm\(conv(\d+)x\d+\)\+[^/]*/conv(\d+)x\d+"
# a sum that is fused has no norm of its own: its convolution lies where others have both
FUSED = {r"depthwise(?!/y=)": "dw_conv"}
BLOCK: dict[str, Replacement] = {
    rf"{SEVERAL}/norm": lambda match: f"dw_conv_list.{_number(match)}.bn",
    SEVERAL: lambda match: f"dw_conv_list.{_number(match)}.conv",
    **conv_norm("depthwise", "dw_conv.conv", "dw_conv.bn"),
    r"squeeze_excite/reduce": "se.fc1",
    r"squeeze_excite/expand": "se.fc2",
}
ONE_POINTWISE = conv_norm("pointwise", "pw_conv.conv", "pw_conv.bn")
TWO_POINTWISE = {
    **conv_norm("pointwise0", "pw_conv.0.conv", "pw_conv.0.bn"),
    **conv_norm("pointwise", "pw_conv.1.conv", "pw_conv.1.bn"),
}


def block_rules(*, multi_scale: bool, pointwise_ratio: float) -> dict[str, Replacement]:
    """Rules of a block with those fields."""
    pointwise = TWO_POINTWISE if pointwise_ratio else ONE_POINTWISE
    return {**(FUSED if multi_scale else {}), **BLOCK, **pointwise}


def block(model: LCNetV2Block) -> Names:
    """Where the parts of a block lie depends on what it has."""
    rules = block_rules(multi_scale=model.multi_scale, pointwise_ratio=model.pointwise_ratio)
    return Names(rules, kept_norms=KEPT_NORMS)


def network(model: LCNetV2) -> Names:
    """The parts of a block by the fields of its stage."""
    config = model.config
    rules: dict[str, Replacement] = {
        **conv_norm("stem0", "stem.0.conv", "stem.0.bn"),
        r"stem1": "stem.1",
        r"hidden": "conv_head",
        r"head": "classifier",
    }
    for stage in range(len(config.depths)):
        place, theirs = rf"stage{stage + 1}_block(\d+)", rf"stages.{stage}.\1"
        if config.multi_scale[stage]:
            rules[f"{place}/depthwise(?!/y=)"] = f"{theirs}.dw_conv"
        if config.pointwise_ratios[stage]:
            pointwise = {
                f"{place}/{ours}": f"{theirs}.{name}" for ours, name in TWO_POINTWISE.items()
            }
            rules |= pointwise
        rules[place] = theirs
    return Names({**rules, **BLOCK, **ONE_POINTWISE}, kept_norms=KEPT_NORMS, shapes=SHAPES)


register_names(LCNetV2Block, timm=block)
register_names(LCNetV2, timm=network)
