"""GhostNetV3: timm's blocks and network."""

from __future__ import annotations

from repjax.blocks.ghostnetv3 import GhostBottleneckV3, GhostModuleV3
from repjax.models.bottlenecks import Row
from repjax.models.ghostnetv3 import GhostNetV3, GhostNetV3Config
from tests.reference_builders import Case, Meta

F64 = {"param_dtype": "float64"}


def module(meta: Meta) -> Case:
    """Its first kernel is 1x1 and its ratio 2, as in the network."""
    arguments = meta["constructor"]
    gated = arguments.get("mode", "original") == "shortcut"
    model = GhostModuleV3(arguments["out_chs"], gated=gated, **F64)
    return Case(model, "timm", 2 + 3 * gated)


def convolutions(inputs: int, outputs: int, strides: int, gated: bool) -> int:
    """Of a bottleneck: two modules, a gate of three, a depthwise sum, a shortcut of two."""
    return 4 + 3 * gated + (strides > 1) + 2 * (strides > 1 or inputs != outputs)


def bottleneck(meta: Meta) -> Case:
    arguments = meta["constructor"]
    strides = arguments.get("stride", 1)
    gated = arguments.get("mode", "original") == "shortcut"
    model = GhostBottleneckV3(
        arguments["mid_chs"],
        arguments["out_chs"],
        kernel_size=arguments.get("dw_kernel_size", 3),
        strides=strides,
        squeeze_excite=arguments.get("se_ratio", 0.0) or 0.0,
        gated=gated,
        **F64,
    )
    number = convolutions(arguments["in_chs"], arguments["out_chs"], strides, gated)
    return Case(model, "timm", number)


def network(meta: Meta) -> Case:
    """Rows are kernel, hidden channels, channels, fraction of the squeeze-excite, strides."""
    arguments = meta["constructor"]
    assert arguments["version"] == "v3"
    rows = tuple(tuple(Row(*row) for row in stage) for stage in arguments["cfgs"])
    config = GhostNetV3Config(width=arguments.get("width", 1.0), rows=rows)
    model = GhostNetV3(
        config=config,
        num_classes=arguments.get("num_classes", 1000),
        in_channels=arguments.get("in_chans", 3),
        **F64,
    )
    inputs, number = config.scaled(config.stem_width), 2
    for index, row in enumerate(row for stage in rows for row in stage):
        outputs = config.scaled(row.features)
        number += convolutions(inputs, outputs, row.strides, index >= config.gated_from)
        inputs = outputs
    return Case(model, "timm", number)


BUILDERS = {
    ("GhostNetV3", "GhostModuleV3"): module,
    ("GhostNetV3", "GhostBottleneckV3"): bottleneck,
    ("GhostNetV3", "GhostNet"): network,
}
