"""repjax: structural re-parameterization for JAX and Flax, exact or refused."""

from repjax import algebra, blocks, branches
from repjax.algebra import NotFusableError
from repjax.trees import MalformedTreeError, fuse_params, register, unfuse_params

__all__ = [
    "MalformedTreeError",
    "NotFusableError",
    "algebra",
    "blocks",
    "branches",
    "fuse_params",
    "register",
    "unfuse_params",
]
