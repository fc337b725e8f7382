"""UniRepLKNet: the dilated block, the full block and the network."""

from __future__ import annotations

from repjax.blocks.unireplknet import DilatedReparamBlock, UniRepLKNetBlock
from repjax.models.unireplknet import CONFIGS, UniRepLKNet, UniRepLKNetConfig
from tests.reference_builders import Case, Meta

F64 = {"param_dtype": "float64"}


def dilated(meta: Meta) -> Case:
    model = DilatedReparamBlock(meta["constructor"]["kernel_size"], **F64)
    return Case(model, "original", convolutions=1)


def block_convolutions(kernel_size: int) -> int:
    """The depthwise one, if there is one, and `pointwise2`."""
    return 1 + bool(kernel_size)


def block(meta: Meta) -> Case:
    arguments = meta["constructor"]
    size = arguments["kernel_size"]
    model = UniRepLKNetBlock(
        size,
        ffn_ratio=arguments.get("ffn_factor", 4),
        layer_scale=arguments.get("layer_scale_init_value", 1e-6),
        **F64,
    )
    return Case(model, "original", block_convolutions(size))


def network(meta: Meta) -> Case:
    arguments = meta["constructor"]
    depths = tuple(arguments.get("depths", (3, 3, 27, 3)))
    sizes = arguments.get("kernel_sizes")
    if sizes is None:
        sizes = {config.depths: config.kernel_sizes for config in CONFIGS.values()}[depths]
    config = UniRepLKNetConfig(
        widths=tuple(arguments.get("dims", (96, 192, 384, 768))),
        depths=depths,
        kernel_sizes=tuple(tuple(stage) for stage in sizes),
        layer_scale=arguments.get("layer_scale_init_value", 1e-6),
    )
    model = UniRepLKNet(
        config=config,
        num_classes=arguments.get("num_classes", 1000),
        in_channels=arguments.get("in_chans", 3),
        **F64,
    )
    downsampling = len(depths) + 1
    blocks = sum(
        block_convolutions(stage[index % len(stage)])
        for stage, depth in zip(config.kernel_sizes, depths, strict=True)
        for index in range(depth)
    )
    return Case(model, "original", downsampling + blocks)


BUILDERS = {
    ("UniRepLKNet", "DilatedReparamBlock"): dilated,
    ("UniRepLKNet", "UniRepLKNetBlock"): block,
    ("UniRepLKNet", "UniRepLKNet"): network,
}
