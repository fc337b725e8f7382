"""The algebra of convolutions: the value `Conv`, and operations on it that are exact.

Nothing here depends on Flax, variables trees or JAX programs. Rules R1 to R3 in the docstrings of
`add` and `compose` decide what is exact; everything else is refused.
"""

from repjax.algebra.chains import bias_map, compose, compose_with_bias_map
from repjax.algebra.conv import Conv
from repjax.algebra.errors import NotFusableError
from repjax.algebra.kernels import (
    average_pool,
    average_pool_kernel,
    batch_norm,
    channel_affine,
    identity,
    identity_kernel,
    pad_kernel,
)
from repjax.algebra.layouts import embed, regroup
from repjax.algebra.padding import same_padding
from repjax.algebra.sums import add, concatenate

__all__ = [
    "Conv",
    "NotFusableError",
    "add",
    "average_pool",
    "average_pool_kernel",
    "batch_norm",
    "bias_map",
    "channel_affine",
    "compose",
    "compose_with_bias_map",
    "concatenate",
    "embed",
    "identity",
    "identity_kernel",
    "pad_kernel",
    "regroup",
    "same_padding",
]
