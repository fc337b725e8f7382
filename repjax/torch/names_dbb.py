"""Names of Diverse Branch Blocks: the original repository."""

from repjax.blocks.dbb import DiverseBranchBlock
from repjax.torch.names import Names, register_names

BLOCK = {
    # of a 1x1 block: the only 1x1 convolution of a depthwise one, the first of two otherwise
    r"conv/y=norm[^(]*\(conv1x1\)\+norm[^(]*\(average[^/]*/conv1x1/norm": "dbb_origin.bn",
    r"conv/y=norm[^(]*\(conv1x1\)\+norm[^(]*\(average[^/]*/conv1x1": "dbb_origin.conv",
    r"conv/y=[^/]*/conv1x1(?:_1)?/norm": "dbb_1x1.bn",
    r"conv/y=[^/]*/conv1x1(?:_1)?": "dbb_1x1.conv",
    r"conv/y=[^/]*/conv\d+x\d+(?:_0)?/norm": "dbb_origin.bn",
    r"conv/y=[^/]*/conv\d+x\d+(?:_0)?": "dbb_origin.conv",
    r"conv/y=[^/]*/conv1x1_average\d+x\d+/conv1x1/norm": "dbb_avg.bn.bn",
    r"conv/y=[^/]*/conv1x1_average\d+x\d+/conv1x1": "dbb_avg.conv",
    r"conv/y=[^/]*/(?:conv1x1_)?average\d+x\d+/norm": "dbb_avg.avgbn",
    r"conv/y=[^/]*/sum_conv\d+x\d+/sum/norm": "dbb_1x1_kxk.bn1.bn",
    r"conv/y=[^/]*/sum_conv\d+x\d+/sum/conv1x1": "dbb_1x1_kxk.idconv1",
    r"conv/y=[^/]*/sum_conv\d+x\d+/conv\d+x\d+": "dbb_1x1_kxk.conv2",
    r"conv/y=[^/]*/conv1x1_conv\d+x\d+/conv1x1(?:_0)?/norm": "dbb_1x1_kxk.bn1.bn",
    r"conv/y=[^/]*/conv1x1_conv\d+x\d+/conv1x1(?:_0)?": "dbb_1x1_kxk.conv1",
    r"conv/y=[^/]*/conv1x1_conv\d+x\d+/conv\d+x\d+(?:_1)?": "dbb_1x1_kxk.conv2",
    r"conv/y=[^/]*/(?:sum|conv1x1)_conv\d+x\d+/norm": "dbb_1x1_kxk.bn2",
    r"conv": "dbb_reparam",
}

register_names(DiverseBranchBlock, original=Names(BLOCK))
