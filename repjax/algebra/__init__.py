"""The algebra of convolutions: one noun, `Conv`, and the verbs that keep it exact.

It knows nothing of Flax, of trees or of programs. Rules R1 to R3 in the docstrings of
`add` and `compose` decide what is exact; everything else is refused.
"""

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
from repjax.algebra.padding import same_padding
from repjax.algebra.verbs import add, compose, concatenate, embed, regroup

__all__ = [
    "Conv",
    "NotFusableError",
    "add",
    "average_pool",
    "average_pool_kernel",
    "batch_norm",
    "channel_affine",
    "compose",
    "concatenate",
    "embed",
    "identity",
    "identity_kernel",
    "pad_kernel",
    "regroup",
    "same_padding",
]
