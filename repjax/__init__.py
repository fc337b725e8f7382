"""repjax: structural re-parameterization for JAX and Flax, exact or refused."""

from repjax import algebra, blocks, branches
from repjax._verify import Verification, verify
from repjax.algebra import NotFusableError
from repjax.tracing.programs import count_operations
from repjax.trees import MalformedTreeError, fuse_params, register, unfuse_params

__all__ = [
    "MalformedTreeError",
    "NotFusableError",
    "Verification",
    "algebra",
    "blocks",
    "branches",
    "count_operations",
    "fuse_params",
    "register",
    "unfuse_params",
    "verify",
]
