"""PP-LCNetV2: timm's block and network."""

from __future__ import annotations

from repjax.blocks.lcnetv2 import LCNetV2Block
from repjax.models.lcnetv2 import LCNetV2, LCNetV2Config
from tests.reference_builders import Case, Meta

F64 = {"param_dtype": "float64"}


def block(meta: Meta) -> Case:
    arguments = meta["constructor"]
    split = arguments.get("split_pw", False)
    model = LCNetV2Block(
        arguments["out_chs"],
        kernel_size=arguments.get("dw_kernel_size", 3),
        strides=arguments.get("stride", 1),
        multi_scale=arguments.get("use_rep", False),
        squeeze_excite=arguments.get("se_ratio", 0.25) if arguments.get("use_se") else 0.0,
        pointwise_ratio=arguments.get("pw_ratio", 0.5) if split else 0.0,
        shortcut=arguments.get("use_shortcut", False),
        **F64,
    )
    return Case(model, "timm", 2 + split)


def network(meta: Meta) -> Case:
    """A head without a hidden layer is refused: no published network has one."""
    arguments = meta["constructor"]
    config = LCNetV2Config(
        width=arguments.get("scale", 1.0),
        depths=tuple(arguments.get("depths", (2, 2, 6, 2))),
        head_width=arguments.get("head_hidden_size", 1280),
    )
    model = LCNetV2(
        config=config,
        num_classes=arguments.get("num_classes", 1000),
        in_channels=arguments.get("in_chans", 3),
        **F64,
    )
    stages = zip(config.depths, config.pointwise_ratios, strict=True)
    convolutions = 3 + sum(depth * (2 + (ratio > 0)) for depth, ratio in stages)
    return Case(model, "timm", convolutions)


BUILDERS = {("LCNetV2", "RepDepthwiseSeparable"): block, ("LCNetV2", "LCNetV2"): network}
