"""RepGhost: the blocks of the original repository, its network and timm's."""

from __future__ import annotations

from typing import Any

from repjax.blocks.repghost import RepGhostBottleneck, RepGhostModule
from repjax.models.bottlenecks import Row
from repjax.models.repghost import RepGhostConfig, RepGhostNet
from tests.reference_builders import Case, Meta

F64 = {"param_dtype": "float64"}


def branches(arguments: Meta) -> dict[str, Any]:
    reparam = arguments.get("reparam", True)
    return {
        "norm_branch": reparam and arguments.get("reparam_bn", True),
        "identity_branch": reparam and arguments.get("reparam_identity", False),
    }


def merges(arguments: Meta) -> bool:
    """Whether anything stands beside the depthwise convolutions.

    The official code leaves blocks without any in train form.
    """
    return any(branches(arguments).values())


def module(meta: Meta) -> Case:
    arguments = meta["constructor"]
    model = RepGhostModule(
        arguments.get("oup", arguments.get("out_chs")),
        kernel_size=arguments.get("kernel_size", 1),
        cheap_kernel_size=arguments.get("dw_size", 3),
        strides=arguments.get("stride", 1),
        relu=arguments.get("relu", True),
        **branches(arguments),
        **F64,
    )
    return Case(model, "original", 2, loads_deploy=merges(arguments))


def convolutions(inputs: int, outputs: int, strides: int) -> int:
    """Of a bottleneck: two modules, a depthwise convolution, a shortcut of two."""
    return 4 + (strides > 1) + 2 * (strides > 1 or inputs != outputs)


def bottleneck(meta: Meta) -> Case:
    arguments = meta["constructor"]
    strides = arguments.get("stride", 1)
    model = RepGhostBottleneck(
        arguments["mid_chs"],
        arguments["out_chs"],
        kernel_size=arguments.get("dw_kernel_size", 3),
        strides=strides,
        squeeze_excite=arguments.get("se_ratio", 0.0) or 0.0,
        shortcut=arguments.get("shortcut", True),
        **branches(arguments),
        **F64,
    )
    number = convolutions(arguments["in_chs"], arguments["out_chs"], strides)
    return Case(model, "original", number, loads_deploy=merges(arguments))


def network(meta: Meta) -> Case:
    """Rows are kernel, hidden channels, channels, fraction of the gate, strides."""
    arguments = meta["constructor"]
    rows = tuple(tuple(Row(*row) for row in stage) for stage in arguments["cfgs"])
    config = RepGhostConfig(
        width=arguments.get("width", 1.0),
        rows=rows,
        shortcut=arguments.get("shortcut", True),
        **branches(arguments),
    )
    model = RepGhostNet(
        config=config,
        num_classes=arguments.get("num_classes", 1000),
        in_channels=arguments.get("in_chans", 3),
        **F64,
    )
    inputs, number = config.scaled(config.stem_width), 2
    for row in (row for stage in rows for row in stage):
        number += convolutions(inputs, config.scaled(row.features), row.strides)
        inputs = config.scaled(row.features)
    return Case(model, "original", number, loads_deploy=merges(arguments))


BUILDERS = {
    ("RepGhost", "RepGhostModule"): module,
    ("RepGhost", "RepGhostBottleneck"): bottleneck,
    ("RepGhost", "RepGhostNet"): network,
}
