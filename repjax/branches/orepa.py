"""OREPA's set of linear branches, for any network."""

from __future__ import annotations

import dataclasses
from typing import Any

from jax.nn.initializers import Initializer, constant, zeros

from repjax.branches.branch import Branch
from repjax.branches.convolution import is_whole
from repjax.branches.grammar import PREFIX, parse
from repjax.branches.kxk import KxK
from repjax.branches.scale import Scale
from repjax.branches.sequence import Sequence
from repjax.branches.sum import Sum

SCALES = {
    "origin": 0.25,
    "mean": 0.25,
    "prior": 0.0,
    "deep": 0.5,
    "pointwise": 1.0,
    "separable": 0.5,
}
"""Initial scales: KxK, mean, cosine, 1x1 then KxK, 1x1, depthwise then 1x1."""


def orepa(kernel_size: int) -> Branch:
    """The six scaled linear branches of OREPA, to stand beside a two-dimensional kernel.

    KxK, 1x1 then a mean, 1x1 then cosines, 1x1 then KxK, 1x1, and depthwise then 1x1, each
    with a trained scale per channel that starts at the value of the paper. Means and cosines
    are never trained: they lie in the collection `fixed`, beside `params`.

    Args:
        kernel_size: of the larger kernels, one number.

    Raises:
        ValueError: it is no whole number, or less than 1.

    Source: Hu et al., Online Convolutional Re-parameterization, CVPR 2022.

    Example:
        >>> orepa(3).formula()
        'orepa3x3'
    """
    if not is_whole(kernel_size) or kernel_size < 1:
        raise ValueError(f"kernel_size is a whole number, at least 1; found {kernel_size!r}")
    total = parse(f"{PREFIX}orepa{kernel_size}x{kernel_size}")
    assert isinstance(total, Sum), "the short word stands for a sum"
    return Sum(
        tuple(
            _starting(branch, constant(scale))
            for branch, scale in zip(total.branches, SCALES.values(), strict=True)
        )
    )


def _starting(branch: Branch, scale_init: Initializer) -> Branch:
    """A scaled branch with its initial scale; the 1x1 beside a fixed identity starts at zero."""
    assert isinstance(branch, Scale), "every branch of the set is scaled"
    inner: Any = branch.branch
    if isinstance(inner, Sequence) and isinstance(inner.first, Sum):
        one, eye = inner.first.branches
        assert isinstance(one, KxK), "a difference to the identity is pointwise"
        first = Sum((dataclasses.replace(one, kernel_init=zeros), eye))
        inner = dataclasses.replace(inner, first=first)
    return dataclasses.replace(branch, branch=inner, scale_init=scale_init)
