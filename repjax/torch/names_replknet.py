"""Names of RepLKNet weights in the original repository; timm has none.

The official deploy form merges the large and the small kernel and keeps every norm that has
no branch beside it; ours has none left. Those after a convolution are `kept_norms`, those in
front of one are folded by `fold_norms_in_front`.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from repjax import algebra
from repjax.blocks.replknet import ReparamLargeKernelConv, RepLKBlock, RepLKFeedForward
from repjax.models.replknet import RepLKNet
from repjax.torch.names import Names, Replacement, hwio, oihw, register_names

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
KEPT_NORMS = {r"(.*\b)conv": r"\1bn"}


def fold_norms_in_front(state: dict[str, Any]) -> dict[str, Any]:
    """A state in the official deploy form without the norms before pointwise convolutions.

    A state in train form, which has no merged kernel, comes back as it is. A feed-forward
    block alone is the same in both forms: it is left in train form.
    """
    if not any(re.search(r"\blkb_reparam\.weight$", name) for name in state):
        return state
    folded = dict(state)
    for name in state:
        match = re.fullmatch(r"(?:(.*\.)?(?:prelkb_bn|preffn_bn)|norm)\.running_var", name)
        if match is not None:
            conv = "head" if name == "norm.running_var" else f"{match[1] or ''}pw1.conv"
            _fold_in_front(folded, name.removesuffix(".running_var"), conv)
    return folded


def _fold_in_front(state: dict[str, Any], norm: str, conv: str) -> None:
    if f"{conv}.weight" not in state:
        return  # reported as missing
    arrays = [
        np.asarray(state.pop(f"{norm}.{leaf}"), np.float64)
        for leaf in ("running_mean", "running_var", "weight", "bias")
    ]
    weight = np.asarray(state[f"{conv}.weight"], np.float64)
    bias = state.get(f"{conv}.bias")
    second = algebra.Conv(hwio(weight), None if bias is None else np.asarray(bias, np.float64))
    first = algebra.batch_norm(*arrays, epsilon=1e-5, dims=weight.ndim - 2)
    folded = algebra.compose(first, second)
    state[f"{conv}.weight"] = oihw(np.asarray(folded.kernel))
    state[f"{conv}.bias"] = np.asarray(folded.bias)


register_names(ReparamLargeKernelConv, original=Names(LARGE_KERNEL))
register_names(
    RepLKBlock, original=Names(BLOCK, prepare=fold_norms_in_front, kept_norms=KEPT_NORMS)
)
register_names(
    RepLKFeedForward,
    original=Names(FEED_FORWARD, prepare=fold_norms_in_front, kept_norms=KEPT_NORMS),
)
register_names(
    RepLKNet,
    original=Names(
        NETWORK,
        prepare=fold_norms_in_front,
        kept_norms=KEPT_NORMS,
        head=r"head/(?:y=[^/]*/conv1x1/)?(?:kernel|bias)",
    ),
)
