"""RepLKNet: the large kernel, the two blocks and the network."""

from __future__ import annotations

from repjax.blocks.replknet import ReparamLargeKernelConv, RepLKBlock, RepLKFeedForward
from repjax.models.replknet import RepLKNet, RepLKNetConfig
from tests.reference_builders import Case, Meta

F64 = {"param_dtype": "float64"}


def large_kernel(meta: Meta) -> Case:
    arguments = meta["constructor"]
    model = ReparamLargeKernelConv(
        arguments["out_channels"],
        kernel_size=arguments["kernel_size"],
        small_kernel_size=arguments["small_kernel"],
        strides=arguments["stride"],
        groups=arguments["groups"],
        **F64,
    )
    return Case(model, "original", convolutions=1)


def block(meta: Meta) -> Case:
    arguments = meta["constructor"]
    model = RepLKBlock(
        arguments["dw_channels"],
        kernel_size=arguments["block_lk_size"],
        small_kernel_size=arguments["small_kernel"],
        **F64,
    )
    return Case(model, "original", convolutions=3)


def feed_forward(meta: Meta) -> Case:
    arguments = meta["constructor"]
    ratio = arguments["internal_channels"] / arguments["in_channels"]
    # it has nothing to merge: the official deploy form is the train form
    return Case(RepLKFeedForward(ratio, **F64), "original", convolutions=2, loads_deploy=False)


def network(meta: Meta) -> Case:
    arguments = meta["constructor"]
    config = RepLKNetConfig(
        widths=tuple(arguments["channels"]),
        depths=tuple(arguments["layers"]),
        kernel_sizes=tuple(arguments["large_kernel_sizes"]),
        small_kernel_size=arguments["small_kernel"],
        depthwise_ratio=arguments.get("dw_ratio", 1),
        ffn_ratio=arguments.get("ffn_ratio", 4),
    )
    model = RepLKNet(
        config=config,
        num_classes=arguments.get("num_classes", 1000),
        in_channels=arguments.get("in_channels", 3),
        **F64,
    )
    stem, transitions = 4, 2 * (len(config.depths) - 1)
    pairs = 5 * sum(config.depths)  # three of a large kernel block, two of a feed-forward one
    head = 1  # a pointwise convolution, as it carries the last norm
    return Case(model, "original", stem + transitions + pairs + head)


BUILDERS = {
    ("RepLKNet", "ReparamLargeKernelConv"): large_kernel,
    ("RepLKNet", "RepLKBlock"): block,
    ("RepLKNet", "ConvFFN"): feed_forward,
    ("RepLKNet", "RepLKNet"): network,
}
