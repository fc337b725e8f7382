"""RepViT: the block and the network of the original repository, and timm's network."""

from __future__ import annotations

from repjax.blocks.repvit import RepVGGDW, RepViTBlock
from repjax.blocks.squeeze_excite import rounded_width
from repjax.models.repvit import RepViT, RepViTConfig, Row
from tests.reference_builders import Case, Meta

F64 = {"param_dtype": "float64"}


def block(meta: Meta) -> Case:
    arguments = meta["constructor"]
    model = RepVGGDW(arguments.get("kernel_size", 3), legacy=bool(arguments.get("legacy")), **F64)
    return Case(model, "original", 1)


def residual_block(meta: Meta) -> Case:
    arguments = meta["constructor"]
    strides = arguments["stride"]
    model = RepViTBlock(
        arguments["oup"],
        kernel_size=3 if strides == 1 else arguments["kernel_size"],
        strides=strides,
        squeeze_excite=bool(arguments["use_se"]),
        **F64,
    )
    return Case(model, "original", 3 if strides == 1 else 4)


def case(config: RepViTConfig, arguments: Meta, naming: str) -> Case:
    model = RepViT(
        config=config,
        num_classes=arguments.get("num_classes", 1000),
        in_channels=arguments.get("in_chans", 3),
        **F64,
    )
    return Case(model, naming, 2 + sum(3 if row.strides == 1 else 4 for row in config.blocks()))


def network(meta: Meta) -> Case:
    """Rows are kernel, expansion, channels, gate, an unused flag, strides.

    The expansion must be 2, and the kernel size is that of the convolutions with strides.
    """
    arguments = meta["constructor"]
    rows = tuple(
        Row(
            rounded_width(features, 8),
            strides=strides,
            squeeze_excite=bool(gate),
            kernel_size=3 if strides == 1 else kernel_size,
        )
        for kernel_size, _, features, gate, _, strides in arguments["cfgs"]
    )
    heads = 2 if arguments.get("distillation", False) else 1
    return case(RepViTConfig(rows=rows, heads=heads), arguments, "original")


def timm_network(meta: Meta) -> Case:
    arguments = meta["constructor"]
    widths = tuple(arguments.get("embed_dim", (48,)))
    ratios = arguments.get("mlp_ratio", 2)
    config = RepViTConfig(
        depths=tuple(arguments.get("depth", (2,))),
        widths=widths,
        kernel_size=arguments.get("kernel_size", 3),
        ratios=tuple(ratios) if isinstance(ratios, list) else (ratios,) * len(widths),
        heads=2 if arguments.get("distillation", True) else 1,
        legacy=arguments.get("legacy", False),
    )
    return case(config, arguments, "timm")


BUILDERS = {
    ("RepViT", "RepVGGDW"): block,
    ("RepViT", "RepVggDw"): block,
    ("RepViT", "RepViTBlock"): residual_block,
    ("RepViT", "RepViT"): network,
    ("RepViT", "RepVit"): timm_network,
}
