"""timm's ByobNet: its configuration is an expression, read here without being run."""

from __future__ import annotations

import ast
from typing import Any

from repjax.blocks.squeeze_excite import rounded_width
from repjax.models.mobileone import MobileOne, MobileOneConfig
from repjax.models.repvgg import RepVGG, RepVGGConfig
from tests.reference_builders import Case, Meta

F64 = {"param_dtype": "float64"}
BASE = (64, 128, 256, 512)


def call(node: ast.expr) -> dict[str, Any]:
    """``name(a=1, b=other(c=2))`` as {"name": "name", "a": 1, "b": {...}}."""
    assert isinstance(node, ast.Call)
    assert isinstance(node.func, ast.Name)
    assert not node.args, "positional arguments"
    found: dict[str, Any] = {"name": node.func.id}
    for keyword in node.keywords:
        found[str(keyword.arg)] = value(keyword.value)
    return found


def value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call):
        return call(node)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        return value(node.left) / value(node.right)
    if isinstance(node, ast.Tuple | ast.List):
        return tuple(value(item) for item in node.elts)
    return ast.literal_eval(node)


def options(cfg: str) -> dict[str, Any]:
    return call(ast.parse(cfg.strip(), mode="eval").body)


def width(channels: float) -> int:
    return rounded_width(channels, 8)


def rd(cfg: dict[str, Any]) -> tuple[float, int]:
    """Ratio and divisor of the squeeze-excites of a ByoModelCfg."""
    kwargs = cfg.get("attn_kwargs", {})
    return kwargs.get("rd_ratio", 1 / 16), kwargs.get("rd_divisor", 8)


def stem_width(cfg: dict[str, Any], widths: list[float]) -> int:
    return round((cfg.get("stem_chs") or widths[0]) * cfg.get("width_factor", 1))


def byobnet(meta: Meta) -> Case:
    arguments = meta["constructor"]
    cfg = options(arguments["cfg"])
    make = {"_rep_vgg_bcfg": repvgg, "_mobileone_bcfg": mobileone}[cfg["blocks"]["name"]]
    return make(cfg, arguments)


def repvgg(cfg: dict[str, Any], arguments: Meta) -> Case:
    blocks = cfg["blocks"]
    depths, factors = blocks.get("d", (4, 6, 16, 1)), blocks.get("wf", (1.0, 1.0, 1.0, 1.0))
    raw = [base * factor for base, factor in zip(BASE, factors, strict=True)]
    groups, number = [], 0
    for depth, base in zip(depths, raw, strict=True):
        for index in range(depth):
            number += 1
            if blocks.get("groups") and index % 2:
                # timm fixes the size of a group by the width before it is rounded
                groups.append((number, int(width(base) // (width(base) // blocks["groups"]))))
    ratio, divisor = rd(cfg)
    gated = cfg.get("attn_layer") == "se"
    config = RepVGGConfig(
        depths=tuple(depths),
        widths=tuple(width(base) for base in raw),
        stem_width=stem_width(cfg, raw),
        groups=tuple(groups),
        squeeze_excite=ratio if gated else 0.0,
        squeeze_excite_divisor=divisor,
    )
    model = RepVGG(
        config=config,
        num_classes=arguments.get("num_classes", 1000),
        in_channels=arguments.get("in_chans", 3),
        **F64,
    )
    return Case(model, "timm", 1 + sum(depths))


def mobileone(cfg: dict[str, Any], arguments: Meta) -> Case:
    blocks = cfg["blocks"]
    depths, factors = blocks.get("d", (2, 8, 10, 1)), blocks.get("wf", (1.0, 1.0, 1.0, 1.0))
    raw = [base * factor for base, factor in zip(BASE, factors, strict=True)]
    ratio, divisor = rd(cfg)
    config = MobileOneConfig(
        depths=tuple(depths),
        widths=tuple(width(base) for base in raw),
        stem_width=stem_width(cfg, raw),
        copies=blocks.get("num_conv_branches", 1),
        squeeze_excite_blocks=tuple(blocks.get("se_blocks") or (0,) * len(depths)),
        squeeze_excite=ratio,
        squeeze_excite_divisor=divisor,
    )
    model = MobileOne(
        config=config,
        num_classes=arguments.get("num_classes", 1000),
        in_channels=arguments.get("in_chans", 3),
        **F64,
    )
    return Case(model, "timm", 1 + 2 * sum(depths))


BUILDERS = {("RepVGG", "ByobNet"): byobnet, ("MobileOne", "ByobNet"): byobnet}
