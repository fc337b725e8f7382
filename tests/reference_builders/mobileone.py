"""MobileOne: the block and the network of the original repository."""

from __future__ import annotations

from repjax.blocks.mobileone import MobileOneBlock
from repjax.models.mobileone import MobileOne, MobileOneConfig, widths
from tests.reference_builders import Case, Meta


def block(meta: Meta) -> Case:
    arguments = meta["constructor"]
    hidden = int(arguments["out_channels"] / 16) if arguments.get("use_se") else 0
    model = MobileOneBlock(
        arguments["out_channels"],
        kernel_size=arguments["kernel_size"],
        strides=arguments.get("stride", 1),
        padding=arguments.get("padding", 0),
        groups=arguments.get("groups", 1),
        copies=arguments.get("num_conv_branches", 1),
        squeeze_excite=hidden,
        param_dtype="float64",
    )
    return Case(model, "original", 1)


def network(meta: Meta) -> Case:
    arguments = meta["constructor"]
    depths = tuple(arguments.get("num_blocks_per_stage", (2, 8, 10, 1)))
    gated = (0, 0, depths[2] // 2, depths[3]) if arguments.get("use_se") else (0, 0, 0, 0)
    config = MobileOneConfig(
        depths=depths,
        widths=widths(*arguments["width_multipliers"]),
        copies=arguments.get("num_conv_branches", 1),
        squeeze_excite_blocks=gated,
    )
    model = MobileOne(
        config=config, num_classes=arguments.get("num_classes", 1000), param_dtype="float64"
    )
    return Case(model, "original", 1 + 2 * sum(depths))


BUILDERS = {("MobileOne", "MobileOneBlock"): block, ("MobileOne", "MobileOne"): network}
