"""Names of asymmetric blocks: the original repository."""

from repjax.blocks.acnet import ACBlock
from repjax.torch.names import Names, register_names

BLOCK = {
    r"conv/y=[^/]*/conv(\d+)x\1(?:_0)?/norm": "square_bn",
    r"conv/y=[^/]*/conv(\d+)x\1(?:_0)?": "square_conv",
    r"conv/y=[^/]*/conv\d+x1(?:_1)?/norm": "ver_bn",
    r"conv/y=[^/]*/conv\d+x1(?:_1)?": "ver_conv",
    r"conv/y=[^/]*/conv1x\d+(?:_2)?/norm": "hor_bn",
    r"conv/y=[^/]*/conv1x\d+(?:_2)?": "hor_conv",
    r"conv": "fused_conv",
}

register_names(ACBlock, original=Names(BLOCK))
