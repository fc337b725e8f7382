"""Names of RepGhost weights: the original repository and timm use the same."""

from __future__ import annotations

import re

from repjax.blocks.repghost import RepGhostBottleneck, RepGhostModule
from repjax.models.repghost import RepGhostNet
from repjax.torch.names import POINTWISE, Names, Replacement, register_names


def conv_norm(ours: str, conv: str, norm: str) -> dict[str, str]:
    """Rules of one convolution with its norm."""
    return {rf"{ours}/y=[^/]*/norm": norm, rf"{ours}(?:/y=[^/]*)?": conv}


MODULE = {
    **conv_norm("primary", "primary_conv.0", "primary_conv.1"),
    r"cheap/y=[^/]*/identity(?:_0)?/norm": "fusion_bn.0",
    r"cheap/y=[^/]*(?:/conv\d+x\d+)?/norm": "cheap_operation.1",
    r"cheap/y=[^/]*(?:/conv\d+x\d+)?": "cheap_operation.0",
    r"cheap": "cheap_operation",
}
BOTTLENECK = {
    r"ghost(\d)": r"ghost\1",
    **conv_norm("depthwise", "conv_dw", "bn_dw"),
    **conv_norm("shortcut_depthwise", "shortcut.0", "shortcut.1"),
    **conv_norm("shortcut_pointwise", "shortcut.2", "shortcut.3"),
    r"squeeze_excite/reduce": "se.conv_reduce",
    r"squeeze_excite/expand": "se.conv_expand",
    **MODULE,
}
SHAPES = {r"conv_head\.weight": POINTWISE}
KEPT_NORMS = {
    r"((?:.*\.)?primary_conv)\.0": r"\1.1",
    r"((?:.*\.)?shortcut)\.0": r"\1.1",
    r"((?:.*\.)?shortcut)\.2": r"\1.3",
    r"((?:.*\.)?)conv_dw": r"\1bn_dw",
    r"conv_stem": "bn1",
    r"(blocks\.\d+\.\d+)\.conv": r"\1.bn1",
}


def block_of_stage(match: re.Match[str]) -> str:
    """Where a bottleneck lies, numbered in its stage."""
    return f"blocks.{int(match[1]) - 1}.{match[2]}"


def network(model: RepGhostNet) -> Names:
    """The last convolution counts as one more stage."""
    last = f"blocks.{len(model.config.rows)}.0"
    rules: dict[str, Replacement] = {
        r"stage(\d+)_block(\d+)": block_of_stage,
        **conv_norm("stem", "conv_stem", "bn1"),
        **conv_norm("last", f"{last}.conv", f"{last}.bn1"),
        r"hidden": "conv_head",
        r"head": "classifier",
        **BOTTLENECK,
    }
    return Names(rules, kept_norms=KEPT_NORMS, shapes=SHAPES)


register_names(RepGhostModule, original=Names(MODULE, kept_norms=KEPT_NORMS))
register_names(RepGhostBottleneck, original=Names(BOTTLENECK, kept_norms=KEPT_NORMS))
register_names(RepGhostNet, original=network, timm=network)
