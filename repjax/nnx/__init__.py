"""NNX blocks on the branches of the Linen ones, and `deploy`: a scope, a block, one function."""

from repjax.nnx.blocks import (
    ACBlock,
    ConvBlock,
    DiverseBranchBlock,
    MobileOneBlock,
    OREPABlock,
    OREPALargeBlock,
    OREPAPointwiseBlock,
    OREPARepVGGBlock,
    QARepVGGBlock,
    RepVGGBlock,
    YOLORepConv,
)
from repjax.nnx.deploy import deploy
from repjax.nnx.repconv import RepConv, ResidualConv
from repjax.nnx.scope import Fixed

__all__ = [
    "ACBlock",
    "ConvBlock",
    "DiverseBranchBlock",
    "Fixed",
    "MobileOneBlock",
    "OREPABlock",
    "OREPALargeBlock",
    "OREPAPointwiseBlock",
    "OREPARepVGGBlock",
    "QARepVGGBlock",
    "RepConv",
    "RepVGGBlock",
    "ResidualConv",
    "YOLORepConv",
    "deploy",
]
