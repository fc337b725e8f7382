"""Names of RepLKNet weights in the original repository; timm has none.

The official deploy form merges the large and the small kernel and keeps every norm that has
no branch beside it; ours has none left.
"""

from __future__ import annotations

import re
from typing import Any

from repjax.blocks.replknet import ReparamLargeKernelConv, RepLKBlock, RepLKFeedForward
from repjax.models.replknet import RepLKNet
from repjax.torch.names import LINEAR, Names, Replacement, register_names

LARGE_KERNEL: dict[str, Replacement] = {
    r"conv/y=norm\(conv[^()]*\)/norm": "lkb_origin.bn",
    r"conv/y=norm\(conv[^()]*\)": "lkb_origin.conv",
    r"conv/y=(?:2\*)?norm\((conv\d+x\d+)[^/]*/\1(?:_0)?/norm": "lkb_origin.bn",
    r"conv/y=(?:2\*)?norm\((conv\d+x\d+)[^/]*/\1(?:_0)?": "lkb_origin.conv",
    r"conv/y=[^/]*/conv\d+x\d+(?:_1)?/norm": "small_conv.bn",
    r"conv/y=[^/]*/conv\d+x\d+(?:_1)?": "small_conv.conv",
    r"conv": "lkb_reparam",
}
SHARED: dict[str, Replacement] = {
    r"pointwise(\d)/y=[^/]*/norm": r"pw\1.bn",
    r"pointwise(\d)(?:/y=[^/]*(?:/conv1x1)?)?": r"pw\1.conv",
    r"large_kernel": "large_kernel",
    **LARGE_KERNEL,
}
IN_FRONT = r"pointwise1/y=[^/]*/identity/norm"
BLOCK: dict[str, Replacement] = {IN_FRONT: "prelkb_bn", **SHARED}
FEED_FORWARD: dict[str, Replacement] = {IN_FRONT: "preffn_bn", **SHARED}


def _block(match: re.Match[str]) -> str:
    """Of the pairs that a stage is made of."""
    return f"stages.{int(match[1]) - 1}.blocks.{match[2]}"


def _transition(match: re.Match[str]) -> str:
    kind = "bn" if match[3] else "conv"
    return f"transitions.{int(match[1]) - 1}.{match[2]}.{kind}"


NETWORK: dict[str, Replacement] = {
    r"stem(\d)/y=[^/]*/norm": r"stem.\1.bn",
    r"stem(\d)(?:/y=[^/]*)?": r"stem.\1.conv",
    r"transition(\d)_(\d)(?:/y=[^/]*)?(/norm)?": _transition,
    r"stage(\d)_norm": lambda match: f"stages.{int(match[1]) - 1}.norm",
    rf"stage(\d)_block(\d*[02468])/{IN_FRONT}": lambda match: f"{_block(match)}.prelkb_bn",
    rf"stage(\d)_block(\d+)/{IN_FRONT}": lambda match: f"{_block(match)}.preffn_bn",
    r"stage(\d)_block(\d+)": _block,
    r"head/y=[^/]*/identity/norm": "norm",
    r"head(?:/y=[^/]*/conv1x1)?": "head",
    **SHARED,
}
KEPT: dict[str, Any] = {
    "kept_norms": {r"(.*\b)conv": r"\1bn"},
    "norms_in_front": {r"((?:.*\.)?)(?:prelkb_bn|preffn_bn)": r"\1pw1.conv", r"norm": "head"},
}

register_names(ReparamLargeKernelConv, original=Names(LARGE_KERNEL))
register_names(RepLKBlock, original=Names(BLOCK, **KEPT))
register_names(RepLKFeedForward, original=Names(FEED_FORWARD, **KEPT))
register_names(
    RepLKNet,
    original=Names(
        NETWORK,
        **KEPT,
        shapes={r"head\.weight": LINEAR},
        head=r"head/(?:y=[^/]*/conv1x1/)?(?:kernel|bias)",
    ),
)
