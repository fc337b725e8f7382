"""Names of MobileOne weights: the original repository and timm."""

import re

from repjax.blocks.mobileone import MobileOneBlock
from repjax.models.mobileone import MobileOne
from repjax.torch.names import Names, Replacement, register_names


def block_rules(copy: str, scale: str, identity: str, reduce: str, expand: str) -> dict[str, str]:
    """Rules of a MobileOne block, given the words of a naming for its parts.

    The copies are convolutions of the block's kernel size: those of 1x1 are copies in a
    block that has nothing larger, and the 1x1 branch otherwise.
    """
    only1x1 = r"conv/y=(?:\d+\*)?norm\(conv1x1\)(?:\+norm\(identity\))?"
    return {
        r"conv/y=[^/]*/identity/norm": identity,
        rf"{only1x1}/conv1x1_(\d+)/norm": rf"{copy}.\1.bn",
        rf"{only1x1}/conv1x1_(\d+)": rf"{copy}.\1.conv",
        rf"{only1x1}(?:/conv1x1)?/norm": rf"{copy}.0.bn",
        rf"{only1x1}(?:/conv1x1)?": rf"{copy}.0.conv",
        r"conv/y=[^/]*/conv1x1/norm": f"{scale}.bn",
        r"conv/y=[^/]*/conv1x1": f"{scale}.conv",
        r"conv/y=[^/]*/conv\d+x\d+_(\d+)/norm": rf"{copy}.\1.bn",
        r"conv/y=[^/]*/conv\d+x\d+_(\d+)": rf"{copy}.\1.conv",
        r"conv/y=[^/]*/conv\d+x\d+/norm": rf"{copy}.0.bn",
        r"conv/y=[^/]*/conv\d+x\d+": rf"{copy}.0.conv",
        r"conv/y=norm\(conv\d+x\d+\)/norm": rf"{copy}.0.bn",
        r"conv/y=norm\(conv\d+x\d+\)": rf"{copy}.0.conv",
        r"conv": "reparam_conv",
        r"squeeze_excite/reduce": reduce,
        r"squeeze_excite/expand": expand,
    }


ORIGINAL_BLOCK = block_rules("rbr_conv", "rbr_scale", "rbr_skip", "se.reduce", "se.expand")
TIMM_BLOCK = block_rules("conv_kxk", "conv_scale", "identity", "attn.fc1", "attn.fc2")

STAGE = r"stage(\d)_block(\d+)_(depthwise|pointwise)"


def _number(match: re.Match[str]) -> int:
    return 2 * int(match[2]) + (match[3] == "pointwise")


ORIGINAL: dict[str, Replacement] = {
    r"stem": "stage0",
    STAGE: lambda match: f"stage{match[1]}.{_number(match)}",
    r"head": "linear",
    **ORIGINAL_BLOCK,
}
TIMM: dict[str, Replacement] = {
    r"stem": "stem",
    STAGE: lambda match: f"stages.{int(match[1]) - 1}.{_number(match)}",
    r"head": "head.fc",
    **TIMM_BLOCK,
}

register_names(MobileOneBlock, original=Names(ORIGINAL_BLOCK), timm=Names(TIMM_BLOCK))
register_names(MobileOne, original=Names(ORIGINAL), timm=Names(TIMM))
