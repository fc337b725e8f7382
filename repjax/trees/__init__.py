"""Functions of variables trees: from a checkpoint alone to the deploy tree, and back."""

from repjax.trees.add_branches import add_branches
from repjax.trees.fuse import fuse_params
from repjax.trees.problems import MalformedTreeError
from repjax.trees.register import register_block
from repjax.trees.rename import rename_params
from repjax.trees.unfuse import unfuse_params

__all__ = [
    "MalformedTreeError",
    "add_branches",
    "fuse_params",
    "register_block",
    "rename_params",
    "unfuse_params",
]
