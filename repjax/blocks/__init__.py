"""Linen blocks: multi-branch when trained, one convolution with ``deployed=True``."""

from repjax.blocks.repconv import RepConv
from repjax.blocks.repvgg import RepVGGBlock
from repjax.blocks.residual import ResidualConv
from repjax.branches import (
    AveragePool,
    Identity,
    KxK,
    Negate,
    Norm,
    Pointwise,
    Scale,
    Sequence,
    Sum,
)

__all__ = [
    "AveragePool",
    "Identity",
    "KxK",
    "Negate",
    "Norm",
    "Pointwise",
    "RepConv",
    "RepVGGBlock",
    "ResidualConv",
    "Scale",
    "Sequence",
    "Sum",
]
