"""Linen blocks: multi-branch when trained, one convolution with ``deployed=True``."""

from repjax.blocks.acnet import ACBlock
from repjax.blocks.dbb import DiverseBranchBlock
from repjax.blocks.ecb import ECB
from repjax.blocks.fastvit import PatchEmbed, RepCPE, RepMixer
from repjax.blocks.fastvit_stages import AttentionBlock, ConvFFN, RepMixerBlock
from repjax.blocks.ghostnetv3 import GhostBottleneckV3, GhostModuleV3
from repjax.blocks.grn import GlobalResponseNorm
from repjax.blocks.lcnetv2 import LCNetV2Block
from repjax.blocks.mobileone import MobileOneBlock
from repjax.blocks.orepa import (
    OREPABlock,
    OREPALargeBlock,
    OREPAPointwiseBlock,
    OREPARepVGGBlock,
)
from repjax.blocks.qarepvgg import QARepVGGBlock
from repjax.blocks.repconv import RepConv
from repjax.blocks.repghost import RepGhostBottleneck, RepGhostModule
from repjax.blocks.replknet import ReparamLargeKernelConv, RepLKBlock, RepLKFeedForward
from repjax.blocks.repvgg import RepVGGBlock
from repjax.blocks.repvit import RepVGGDW, RepViTBlock
from repjax.blocks.residual import ResidualConv
from repjax.blocks.squeeze_excite import SqueezeExcite
from repjax.blocks.unireplknet import DilatedReparamBlock, UniRepLKNetBlock
from repjax.blocks.yolo import YOLORepConv
from repjax.branches import (
    AveragePool,
    Depthwise,
    Fixed,
    Identity,
    KxK,
    Negate,
    Norm,
    Online,
    Pointwise,
    Scale,
    Sequence,
    Shift,
    Sum,
)

__all__ = [
    "ECB",
    "ACBlock",
    "AttentionBlock",
    "AveragePool",
    "ConvFFN",
    "Depthwise",
    "DilatedReparamBlock",
    "DiverseBranchBlock",
    "Fixed",
    "GhostBottleneckV3",
    "GhostModuleV3",
    "GlobalResponseNorm",
    "Identity",
    "KxK",
    "LCNetV2Block",
    "MobileOneBlock",
    "Negate",
    "Norm",
    "OREPABlock",
    "OREPALargeBlock",
    "OREPAPointwiseBlock",
    "OREPARepVGGBlock",
    "Online",
    "PatchEmbed",
    "Pointwise",
    "QARepVGGBlock",
    "RepCPE",
    "RepConv",
    "RepGhostBottleneck",
    "RepGhostModule",
    "RepLKBlock",
    "RepLKFeedForward",
    "RepMixer",
    "RepMixerBlock",
    "RepVGGBlock",
    "RepVGGDW",
    "RepViTBlock",
    "ReparamLargeKernelConv",
    "ResidualConv",
    "Scale",
    "Sequence",
    "Shift",
    "SqueezeExcite",
    "Sum",
    "UniRepLKNetBlock",
    "YOLORepConv",
]
