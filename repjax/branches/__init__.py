"""Branch descriptions: what a block is made of, how each part runs and what it folds to.

A block is its branches. Linen blocks, `fuse_params` and `unfuse_params` all work from these
descriptions; a new family is a new description. Nothing here knows Flax: a branch runs in a
`Scope` that its block provides.
"""

from repjax.branches.around import Negate, Norm, Scale
from repjax.branches.branch import Branch, Geometry, Leaf, Scope
from repjax.branches.combined import Sequence, Sum
from repjax.branches.grammar import equation, parse
from repjax.branches.kxk import KxK, Pointwise
from repjax.branches.preserving import AveragePool, Identity

__all__ = [
    "AveragePool",
    "Branch",
    "Geometry",
    "Identity",
    "KxK",
    "Leaf",
    "Negate",
    "Norm",
    "Pointwise",
    "Scale",
    "Scope",
    "Sequence",
    "Sum",
    "equation",
    "parse",
]
