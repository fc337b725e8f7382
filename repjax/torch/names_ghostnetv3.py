"""Names of GhostNetV3 weights: the original repository and timm differ in one word."""

from __future__ import annotations

import functools

from repjax.blocks.ghostnetv3 import GhostBottleneckV3, GhostModuleV3
from repjax.models.ghostnetv3 import GhostNetV3
from repjax.torch.names import Names, Replacement, register_names
from repjax.torch.names_repghost import SHAPES, block_of_stage, conv_norm

KEPT_NORMS = {
    r"((?:.*\.)?(?:short_conv|shortcut))\.0": r"\1.1",
    r"((?:.*\.)?(?:short_conv|shortcut))\.2": r"\1.3",
    r"((?:.*\.)?short_conv)\.4": r"\1.5",
    r"conv_stem": "bn1",
    r"(blocks\.\d+\.\d+)\.conv": r"\1.bn1",
}


def summed(ours: str, theirs: str, deployed: str, norm: str) -> dict[str, str]:
    """Rules of a sum: copies of its larger kernel, a 1x1 beside them, an identity, all normed."""
    node = rf"{ours}/y=[^/]*"
    places = {
        rf"{node}/conv\d+x\d+_(\d+)": rf"{theirs}_rpr_conv.\1",
        rf"{node}/conv1x1": f"{theirs}_rpr_scale",
        rf"{node}/conv\d+x\d+": f"{theirs}_rpr_conv.0",
        node: f"{theirs}_rpr_conv.0",
    }
    rules = {rf"{node}/identity/norm": f"{theirs}_rpr_skip"}
    for place, name in places.items():
        rules |= {f"{place}/norm": f"{name}.{norm}", place: f"{name}.conv"}
    return {**rules, ours: deployed}


def module_rules(norm: str) -> dict[str, str]:
    """Rules of a `GhostModuleV3`, given what a norm is called."""
    return {
        **summed("primary", "primary", "primary_conv.0", norm),
        **summed("cheap", "cheap", "cheap_operation.0", norm),
        **conv_norm("gate_pointwise", "short_conv.0", "short_conv.1"),
        **conv_norm("gate_row", "short_conv.2", "short_conv.3"),
        **conv_norm("gate_column", "short_conv.4", "short_conv.5"),
    }


def bottleneck_rules(norm: str) -> dict[str, str]:
    """Rules of a `GhostBottleneckV3`."""
    return {
        r"ghost(\d)": r"ghost\1",
        **summed("depthwise", "dw", "conv_dw", norm),
        **conv_norm("shortcut_depthwise", "shortcut.0", "shortcut.1"),
        **conv_norm("shortcut_pointwise", "shortcut.2", "shortcut.3"),
        r"squeeze_excite/reduce": "se.conv_reduce",
        r"squeeze_excite/expand": "se.conv_expand",
        **module_rules(norm),
    }


def network(norm: str, model: GhostNetV3) -> Names:
    """The last convolution counts as one more stage."""
    last = f"blocks.{len(model.config.rows)}.0"
    rules: dict[str, Replacement] = {
        r"stage(\d+)_block(\d+)": block_of_stage,
        **conv_norm("stem", "conv_stem", "bn1"),
        **conv_norm("last", f"{last}.conv", f"{last}.bn1"),
        r"hidden": "conv_head",
        r"head": "classifier",
        **bottleneck_rules(norm),
    }
    return Names(rules, kept_norms=KEPT_NORMS, shapes=SHAPES)


for _module, _rules in ((GhostModuleV3, module_rules), (GhostBottleneckV3, bottleneck_rules)):
    register_names(
        _module,
        original=Names(_rules("bn"), kept_norms=KEPT_NORMS),
        timm=Names(_rules("bn1"), kept_norms=KEPT_NORMS),
    )
register_names(
    GhostNetV3,
    original=functools.partial(network, "bn"),
    timm=functools.partial(network, "bn1"),
)
