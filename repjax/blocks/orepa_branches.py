"""The linear branches of online re-parameterization, and how they start."""

from __future__ import annotations

from collections.abc import Sequence as Sequence_
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import Initializer

from repjax.branches import Branch, Depthwise, Fixed, KxK, Pointwise, Scale, Sequence, Sum
from repjax.branches.orepa import SCALES

KAIMING = nn.initializers.variance_scaling(2.0, "fan_in", "uniform")
NARROW = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")
EXPANSION = 8  # of the depthwise branch


def scaled(branches: Sequence_[Branch], scales: Sequence_[float]) -> Sum:
    """The sum of branches, each with a trained scale per channel and its initial value."""
    pairs = zip(branches, scales, strict=True)
    constant = nn.initializers.constant
    return Sum(tuple(Scale(branch, scale_init=constant(scale)) for branch, scale in pairs))


def linear_branches(
    kernel_size: int, internal: int, kernel_init: Initializer, *, pointwise: bool
) -> Sum:
    """The branches of OREPA: KxK, mean, cosine, 1x1-KxK, 1x1 (on request), depthwise-1x1.

    Args:
        kernel_size: of the larger kernels.
        internal: channels between 1x1 and KxK, whose 1x1 is a difference to the identity.
        kernel_init: initializer of the kernels.
        pointwise: whether there is a 1x1 branch.
    """
    conv, one = KxK(kernel_size, kernel_init=kernel_init), Pointwise(kernel_init=kernel_init)
    difference = Sum((Pointwise(kernel_init=nn.initializers.zeros_init()), Fixed("eye", 1)))
    separable = Sequence(Depthwise(kernel_size, EXPANSION, kernel_init=kernel_init), one)
    branches = {
        "origin": conv,
        "mean": Sequence(one, Fixed("mean", kernel_size)),
        "prior": Sequence(one, Fixed("cosine", kernel_size)),
        "deep": Sequence(difference, conv, features=internal),
        **({"pointwise": one} if pointwise else {}),
        "separable": separable,
    }
    return scaled(tuple(branches.values()), [SCALES[name] for name in branches])


def identity_init(
    key: jax.Array, shape: Sequence_[int], dtype: Any = jnp.float32, out_sharding: Any = None
) -> jax.Array:
    """One at its own channel: the identity between as many channels."""
    return jnp.broadcast_to(jnp.eye(shape[-2], shape[-1], dtype=dtype), shape)
