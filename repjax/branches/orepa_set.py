"""OREPA's set of linear branches, for its blocks and for any network."""

from __future__ import annotations

from collections.abc import Iterable

from jax.nn.initializers import Initializer, constant, zeros

from repjax.branches.branch import Branch
from repjax.branches.convolution import is_whole
from repjax.branches.fixed import Fixed
from repjax.branches.kxk import Depthwise, KxK, Pointwise
from repjax.branches.scale import Scale
from repjax.branches.sequence import Sequence
from repjax.branches.sum import Sum

EXPANSION = 8  # of the depthwise branch


def orepa(
    kernel_size: int,
    *,
    pointwise: bool = True,
    features: int | None = None,
    kernel_init: Initializer | None = None,
) -> Branch:
    """The six scaled linear branches of OREPA, two-dimensional.

    KxK, 1x1 then a mean, 1x1 then cosines, 1x1 then KxK, 1x1, and depthwise then 1x1, each
    with a trained scale per channel that starts at the value of the paper. Means and cosines
    are never trained: they lie in the collection `fixed`, beside `params`. The 1x1 before
    the KxK is a difference to the identity, and starts at zero.

    Args:
        kernel_size: of the larger kernels, one number.
        pointwise: whether there is a 1x1 branch.
        features: channels between 1x1 and KxK; None means as many as come out.
        kernel_init: initializer of the kernels; None leaves it to the block.

    Raises:
        ValueError: `kernel_size` is no whole number, or less than 1.

    Source: Hu et al., Online Convolutional Re-parameterization, CVPR 2022.

    Example:
        >>> orepa(3).formula()
        'orepa3x3'
    """
    if not is_whole(kernel_size) or kernel_size < 1:
        raise ValueError(f"kernel_size is a whole number, at least 1; found {kernel_size!r}")
    conv, one = KxK(kernel_size, kernel_init=kernel_init), Pointwise(kernel_init=kernel_init)
    difference = Sum((Pointwise(kernel_init=zeros), Fixed("eye", 1)))
    wide = Depthwise(kernel_size, EXPANSION, kernel_init=kernel_init)
    branches: list[tuple[Branch, float]] = [
        (conv, 0.25),
        (Sequence(one, Fixed("mean", kernel_size)), 0.25),
        (Sequence(one, Fixed("cosine", kernel_size)), 0.0),
        (Sequence(difference, conv, features=features), 0.5),
        *([(one, 1.0)] if pointwise else []),
        (Sequence(wide, one), 0.5),
    ]
    return scaled(branches).resolve(2, use_bias=False)


def scaled(branches: Iterable[tuple[Branch, float]]) -> Sum:
    """A sum of branches, each with a trained scale per channel.

    Args:
        branches: each with the initial value of its scale.

    Example:
        >>> scaled([(KxK(3), 0.5), (Pointwise(), 1.0)]).resolve(2, use_bias=False).formula()
        'scale(conv3x3)+scale(conv1x1)'
    """
    return Sum(tuple(Scale(branch, scale_init=constant(scale)) for branch, scale in branches))
