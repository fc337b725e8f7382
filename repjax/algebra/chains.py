"""One convolution after another as one: `compose`, and what becomes of a bias at the border.

A bias of the first that meets zero padding of the second is one more input channel, which is
one inside the image and zero outside. What the second makes of that channel is a convolution
of an image of ones: the bias map.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from repjax.algebra import arithmetic, shapes
from repjax.algebra.conv import Conv, from_shape, in_one_type
from repjax.algebra.errors import NotFusableError
from repjax.algebra.padding import Size, sizes_or_any


def compose(first: Conv, second: Conv, *, size: Size = None) -> Conv:
    """The convolution equal to ``second(first(x))`` (rule R3).

    Strides multiply, taps add, padding is ``p1 + s1 * p2``. Exact only where `second` reads
    outside the outputs of `first` nothing that `first`, continued, would have filled: its
    zero padding must meet zero kernel contributions, and no bias of `first`. Where only the
    bias stands in the way, `compose_with_bias_map` is exact.

    Args:
        first: applied first.
        second: applied to the outputs of `first`.
        size: spatial input size of `first` in pixels, or None: legal for every size of which
            `first` leaves at least one pixel.

    Raises:
        NotFusableError: channels do not fit, the border would differ, or `second` dilates
            an input that `first` has strided or biased.

    Example:
        >>> scale = Conv(jnp.full((1, 1, 1, 2), 3.0), groups=2)
        >>> compose(Conv(jnp.ones((3, 3, 2, 2)), padding=1), scale).kernel[0, 0, 0]
        Array([3., 3.], dtype=float32)
    """
    sizes = sizes_or_any(size, first.dims)
    _check(first, second, sizes, biased=first.bias is not None)
    first, second = in_one_type(first, second)
    kernel = arithmetic.compose_kernels(first.kernel, first.shape, second.kernel, second.shape)
    bias = second.bias
    if first.bias is not None:
        through = arithmetic.bias_through(first.bias, second.kernel, second.shape)
        bias = arithmetic.sum_present([bias, through])
    return from_shape(kernel, bias, shapes.chain_shape(first.shape, second.shape))


def compose_with_bias_map(
    first: Conv, second: Conv, *, size: Size = None
) -> tuple[Conv, Conv | None]:
    """The convolution and the bias map that together equal ``second(first(x))`` (rule R3).

    As `compose`, but the bias of `first` may meet the zero padding or the dilated input of
    `second`. For every image x, of a spatial size n, ``second(first(x))`` is
    ``conv(x) + bias_map.of_ones(first.output_size(n))``. The map has one input channel and
    is the same array for every size; it adds and composes as any `Conv` does.

    `compose` refuses such a chain, so `fuse_params`, which folds with `compose`, never meets
    a bias map: a deploy tree holds convolutions only.

    Args:
        first: applied first.
        second: applied to the outputs of `first`.
        size: spatial input size of `first` in pixels, or None: legal for every size of which
            `first` leaves at least one pixel.

    Returns:
        The convolution, and the map, or None where the convolution can carry the bias.

    Raises:
        NotFusableError: channels do not fit, the kernel part of `first` would differ at the
            border, or `second` dilates an input that `first` has strided.

    Example:
        >>> shift = Conv(jnp.ones((1, 1, 1)), jnp.ones(1))
        >>> conv, bias = compose_with_bias_map(shift, Conv(jnp.ones((3, 1, 1)), padding=1))
        >>> (conv(jnp.zeros((4, 1))) + bias.of_ones(4))[:, 0]
        Array([2., 3., 3., 2.], dtype=float32)
    """
    sizes = sizes_or_any(size, first.dims)
    _check(first, second, sizes, biased=False)
    bias = first.bias
    if bias is None or not shapes.chain_problems(first.shape, second.shape, sizes, True):
        return compose(first, second, size=size), None
    start, first, second = in_one_type(bias_map(bias, dims=first.dims), first, second)
    conv = compose(first.replace(bias=None), second, size=size)
    return conv, compose(start, second.replace(bias=None))


def bias_map(bias: ArrayLike, *, dims: int = 2) -> Conv:
    """The convolution that makes `bias` of an image of ones, and zero outside of it.

    It has one input channel, one tap and no bias, and is where the map of a chain starts:
    compose it with what follows.

    Args:
        bias: (features,), floating point.
        dims: number of spatial axes.

    Raises:
        ValueError: `bias` is no vector.

    Example:
        >>> bias_map(jnp.array([2.0, 3.0]), dims=1).of_ones(2)
        Array([[2., 3.],
               [2., 3.]], dtype=float32)
    """
    values: jax.Array = jnp.asarray(bias)
    if values.ndim != 1:
        raise ValueError(f"a bias has shape (features,); found {values.shape}")
    shape = shapes.bias_shape(len(values), dims)
    return from_shape(values.reshape(shape.kernel_shape), None, shape)


def _check(first: Conv, second: Conv, sizes: shapes.Sizes, *, biased: bool) -> None:
    reasons = shapes.chain_problems(first.shape, second.shape, sizes, biased)
    if not reasons:
        return
    way_out = ""
    if not shapes.chain_problems(first.shape, second.shape, sizes, False):
        way_out = "; compose_with_bias_map gives this bias as a convolution of its own"
    raise NotFusableError(f"cannot compose: {', '.join(reasons)}: {first}, then {second}{way_out}")
