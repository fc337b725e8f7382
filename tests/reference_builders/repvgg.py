"""RepVGG, QARepVGG and the YOLO blocks."""

from __future__ import annotations

from typing import Any

import flax.linen as nn

from repjax.blocks.qarepvgg import QARepVGGBlock
from repjax.blocks.repvgg import RepVGGBlock
from repjax.blocks.yolo import YOLORepConv
from repjax.models.repvgg import RepVGG, RepVGGConfig, widths
from tests.reference_builders import Case, Meta

F64 = {"param_dtype": "float64"}


def geometry(arguments: Meta) -> dict[str, Any]:
    """Arguments of a block in PyTorch's words as ours; the train form ignores dilation."""
    return {
        "features": arguments["out_channels"],
        "kernel_size": arguments.get("kernel_size", 3),
        "strides": arguments.get("stride", 1),
        "padding": arguments.get("padding", 1),
        "groups": arguments.get("groups", 1),
        **F64,
    }


def squeeze_excite(arguments: Meta) -> dict[str, Any]:
    hidden = arguments["out_channels"] // 16 if arguments.get("use_se") else 0
    return {"squeeze_excite": hidden, "square_window": True}


def repvgg_block(meta: Meta) -> Case:
    arguments = meta["constructor"]
    model = RepVGGBlock(**geometry(arguments), **squeeze_excite(arguments))
    return Case(model, "original", 1)


def repvgg(meta: Meta) -> Case:
    arguments = meta["constructor"]
    multipliers = arguments["width_multiplier"]
    groups = arguments.get("override_groups_map") or {}
    config = RepVGGConfig(
        depths=tuple(arguments["num_blocks"]),
        widths=widths(*multipliers),
        groups=tuple((int(block), number) for block, number in groups.items()),
        squeeze_excite=1 / 16 if arguments.get("use_se") else 0.0,
        square_window=True,
    )
    model = RepVGG(config=config, num_classes=arguments.get("num_classes", 1000), **F64)
    return Case(model, "original", 1 + sum(config.depths))


def qarepvgg(version: int) -> Any:
    def build(meta: Meta) -> Case:
        arguments = meta["constructor"]
        gated = bool(arguments.get("use_se"))
        hidden = arguments["out_channels"] // 16 if gated else 0
        model = QARepVGGBlock(version=version, squeeze_excite=hidden, **geometry(arguments))
        # after a squeeze-excite the last norm has no affine neighbor
        return Case(model, f"v{version}", 1, norms=int(gated))

    return build


def yolov6_qarepvgg(average: bool) -> Any:
    def build(meta: Meta) -> Case:
        shared = {"average": average, "epsilon": meta["bn_eps"][0], "momentum": 0.97}
        model = QARepVGGBlock(version=2, **shared, **geometry(meta["constructor"]))
        return Case(model, "yolov6", 1)

    return build


def yolov6_repvgg(meta: Meta) -> Case:
    shared = {"epsilon": meta["bn_eps"][0], "activation": nn.relu}
    model = YOLORepConv(**shared, **geometry(meta["constructor"]))
    return Case(model, "original", 1)


def yolov7_repconv(meta: Meta) -> Case:
    arguments = meta["constructor"]
    activation = nn.silu if arguments.get("act", True) is True else None
    model = YOLORepConv(
        arguments["c2"],
        kernel_size=arguments.get("k", 3),
        strides=arguments.get("s", 1),
        padding=1,  # the block takes no other, its kernels are 3x3
        groups=arguments.get("g", 1),
        epsilon=meta["bn_eps"][0],
        activation=activation,
        **F64,
    )
    return Case(model, "yolov7", 1)


BUILDERS = {
    ("RepVGG", "RepVGGBlock"): repvgg_block,
    ("RepVGG", "RepVGG"): repvgg,
    ("QARepVGG", "QARepVGGBlockV1"): qarepvgg(1),
    ("QARepVGG", "QARepVGGBlockV2"): qarepvgg(2),
    ("YOLOv6", "RepVGGBlock"): yolov6_repvgg,
    ("YOLOv6", "QARepVGGBlock"): yolov6_qarepvgg(average=False),
    ("YOLOv6", "QARepVGGBlockV2"): yolov6_qarepvgg(average=True),
    ("YOLOv7", "RepConv"): yolov7_repconv,
}
