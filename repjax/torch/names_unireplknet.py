"""Names of UniRepLKNet weights in the original repository; timm has none."""

import re

from repjax.blocks.unireplknet import DilatedReparamBlock, UniRepLKNetBlock
from repjax.models.unireplknet import UniRepLKNet
from repjax.torch.names import LINEAR, Names, Replacement, Shape, register_names


def dilated_rules(node: str, first: str, prefix: str) -> dict[str, Replacement]:
    """Rules of a large kernel and the dilated ones beside it.

    Args:
        node: of the convolution in our tree.
        first: pattern of what stands in its equation before the large kernel.
        prefix: of the names.
    """
    return {
        rf"{node}/y={first}\((conv\d+x\d+)\)[^/]*/\1/norm": f"{prefix}origin_bn",
        rf"{node}/y={first}\((conv\d+x\d+)\)[^/]*/\1": f"{prefix}lk_origin",
        rf"{node}/y=[^/]*/conv(\d+)x\d+_dilation(\d+)/norm": rf"{prefix}dil_bn_k\1_\2",
        rf"{node}/y=[^/]*/conv(\d+)x\d+_dilation(\d+)": rf"{prefix}dil_conv_k\1_\2",
        rf"{node}/y=[^/]*/conv(\d+)x\d+/norm": rf"{prefix}dil_bn_k\1_1",
        rf"{node}/y=[^/]*/conv(\d+)x\d+": rf"{prefix}dil_conv_k\1_1",
        node: f"{prefix}lk_origin",
    }


BLOCK: dict[str, Replacement] = {
    r"depthwise/y=[^/]*/norm": "norm",
    r"depthwise(?:/y=[^/]*)?": "dwconv",
    r"large_kernel/y=[^/]*/norm": "norm",
    **dilated_rules("large_kernel", r"norm\(norm", "dwconv."),
    r"squeeze_excite/reduce": "se.down",
    r"squeeze_excite/expand": "se.up",
    r"pointwise1": "pwconv1.1",
    r"response_norm/scale": "act.1.gamma",
    r"pointwise2/y=[^/]*/identity/bias": "act.1.beta",
    r"pointwise2/y=[^/]*/scale": "gamma",
    r"pointwise2/y=[^/]*/norm": "pwconv2.2",
    r"pointwise2/y=[^/]*/conv1x1": "pwconv2.0",
    r"pointwise2": "pwconv2.0",
}
SHAPES: dict[str, Shape] = {
    r".*pwconv2\.0\.weight": LINEAR,
    r".*act\.1\.gamma": (1, 1, 1, 0),
}


def _stem(match: re.Match[str]) -> str:
    """Convolution, norm, activation, convolution, norm."""
    return f"downsample_layers.0.{3 * int(match[1]) + (match[2] == 'norm')}"


def _downsample(match: re.Match[str]) -> str:
    return f"downsample_layers.{match[1]}.{int(match[2] == 'norm')}"


NETWORK: dict[str, Replacement] = {
    r"stem(\d)_(conv|norm)": _stem,
    r"downsample(\d)_(conv|norm)": _downsample,
    r"stage(\d)_block(\d+)": lambda match: f"stages.{int(match[1]) - 1}.{match[2]}",
    r"norm\d?|head": lambda match: match[0],
    **BLOCK,
}

register_names(DilatedReparamBlock, original=Names(dilated_rules("conv", "norm", "")))
register_names(UniRepLKNetBlock, original=Names(BLOCK, shapes=SHAPES))
register_names(UniRepLKNet, original=Names(NETWORK, shapes=SHAPES))
