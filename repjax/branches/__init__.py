"""Branch descriptions: what a block is made of, how each part runs and what it folds to.

A block is its branches. Linen blocks, `fuse_params` and `unfuse_params` all work from these
descriptions; a new family is a new description. Nothing here depends on Flax: a branch runs in
a `Scope` that its block provides.
"""

from repjax.branches.branch import (
    Branch,
    Geometry,
    LeafShape,
    NormRequest,
    Request,
    Scope,
)
from repjax.branches.fixed import Fixed
from repjax.branches.grammar import equation, parse, require_kernel
from repjax.branches.identity import Identity
from repjax.branches.kxk import Depthwise, KxK, Pointwise
from repjax.branches.norm import Norm
from repjax.branches.online import Online
from repjax.branches.orepa_set import orepa
from repjax.branches.pool import AveragePool
from repjax.branches.scale import Negate, Scale
from repjax.branches.sequence import Sequence
from repjax.branches.shift import Shift
from repjax.branches.sum import Sum

__all__ = [
    "AveragePool",
    "Branch",
    "Depthwise",
    "Fixed",
    "Geometry",
    "Identity",
    "KxK",
    "LeafShape",
    "Negate",
    "Norm",
    "NormRequest",
    "Online",
    "Pointwise",
    "Request",
    "Scale",
    "Scope",
    "Sequence",
    "Shift",
    "Sum",
    "equation",
    "orepa",
    "parse",
    "require_kernel",
]
