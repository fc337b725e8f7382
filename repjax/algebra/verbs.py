"""What can be done with convolutions: `add`, `compose`, `concatenate`, `embed`, `regroup`.

Each verb returns the one `Conv` that equals the sum, chain or stack of its arguments for
every input, borders included, or raises `NotFusableError`. Kernels meet by products and
shifted sums of kernel-sized arrays, never by a data convolution; arithmetic is in float32
at least, at the highest precision, and the result stays in that type.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from repjax.algebra import arithmetic, geometry, products, shapes
from repjax.algebra.conv import Conv
from repjax.algebra.errors import NotFusableError
from repjax.algebra.padding import per_axis

Size = int | Sequence[int] | None


def add(*convs: Conv, size: Size = None) -> Conv:
    """The sum of convolutions of the same input as one convolution (rule R1).

    Tap u of a branch with low padding p1 and dilation d1 lands on tap
    ``(p2 - p1 + u * d1) / d2`` of the merged kernel, which is the smallest that holds them
    all; groups meet at their greatest common divisor. Ding et al., RepVGG, CVPR 2021, is
    the case 3x3 + 1x1 + identity.

    Args:
        *convs: at least one `Conv`, with equal channels, strides and numbers of outputs.
        size: spatial input size in pixels, or None: then outputs must agree for every size.

    Raises:
        NotFusableError: channels, strides, input dilation or output sizes differ.

    Example:
        >>> big = Conv(jnp.ones((3, 3, 1, 1)), padding=1)
        >>> add(big, Conv(jnp.ones((1, 1, 1, 1)))).kernel[:, :, 0, 0]
        Array([[1., 1., 1.],
               [1., 2., 1.],
               [1., 1., 1.]], dtype=float32)
    """
    _check_parallel("add", convs, size, same_features=True)
    convs = products.promoted(convs)
    parts = tuple(conv.shape for conv in convs)
    kernel = arithmetic.add_kernels([conv.kernel for conv in convs], parts)
    bias = products.sum_present([conv.bias for conv in convs])
    return products.from_shape(kernel, bias, shapes.sum_shape(parts))


def concatenate(*convs: Conv, size: Size = None) -> Conv:
    """Convolutions of the same input, stacked on output channels, as one convolution.

    Args:
        *convs: at least one `Conv`, with equal input channels, strides and numbers of
            outputs; several convolutions come out with one channel group.
        size: spatial input size in pixels, or None: then outputs must agree for every size.

    Raises:
        NotFusableError: input channels, strides, input dilation or output sizes differ.

    Example:
        >>> concatenate(Conv(jnp.ones((1, 2, 3))), Conv(jnp.ones((1, 2, 4)))).features
        7
    """
    _check_parallel("concatenate", convs, size, same_features=False)
    convs = products.promoted(convs)
    parts = tuple(conv.shape for conv in convs)
    kernel = arithmetic.stack_kernels([conv.kernel for conv in convs], parts)
    bias = None
    if any(conv.bias is not None for conv in convs):
        zeros = functools.partial(jnp.zeros, dtype=kernel.dtype)
        bias = jnp.concatenate(
            [zeros(conv.features) if conv.bias is None else conv.bias for conv in convs]
        )
    return products.from_shape(kernel, bias, shapes.stack_shape(parts))


def compose(first: Conv, second: Conv, *, size: Size = None) -> Conv:
    """The convolution equal to ``second(first(x))`` (rule R3).

    Strides multiply, taps add, padding is ``p1 + s1 * p2``. Exact only where `second` reads
    outside the outputs of `first` nothing that `first`, continued, would have filled: its
    zero padding must meet zero kernel contributions, and no bias of `first`.

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
    _check_chain(first, second, size)
    first, second = products.promoted((first, second))
    kernel = arithmetic.compose_kernels(first.kernel, first.shape, second.kernel, second.shape)
    bias = second.bias
    if first.bias is not None:
        through = arithmetic.bias_through(first.bias, second.kernel, second.shape)
        bias = products.sum_present([bias, through])
    return products.from_shape(kernel, bias, shapes.chain_shape(first.shape, second.shape))


def embed(
    conv: Conv,
    kernel_size: int | Sequence[int],
    *,
    low: int | Sequence[int],
    dilation: int | Sequence[int] = 1,
) -> Conv:
    """The same map with its kernel written on another lattice of taps (rule R1).

    Padding a 1x1 to KxK, a dilated kernel as a sparse one and cropping are all this.

    Args:
        conv: the convolution.
        kernel_size: taps per axis of the new kernel.
        low: low padding per axis of the new kernel; the high padding follows.
        dilation: distance between the taps of the new kernel.

    Raises:
        NotFusableError: a tap of `conv` falls between or outside the taps of the new one.

    Example:
        >>> embed(Conv(jnp.ones((3, 1, 1)), padding=2, dilation=2), 5, low=2).kernel[:, 0, 0]
        Array([1., 0., 1., 0., 1.], dtype=float32)
    """
    sizes = per_axis(kernel_size, conv.dims, "kernel_size")
    steps = per_axis(dilation, conv.dims, "dilation")
    targets = [
        geometry.on_lattice(
            -start,
            (taps - 1) * step - start,
            step,
            stride=axis.stride,
            excess=axis.excess,
            input_dilation=axis.input_dilation,
        )
        for axis, taps, start, step in zip(
            conv.axes, sizes, per_axis(low, conv.dims, "low"), steps, strict=True
        )
    ]
    for number, (axis, target) in enumerate(zip(conv.axes, targets, strict=True)):
        wanted = (axis.offsets() - target.first) / target.dilation
        if np.any(wanted % 1) or wanted.min() < 0 or wanted.max() > target.taps - 1:
            raise NotFusableError(
                f"cannot embed {conv} in {sizes} taps with low padding {low}, dilation "
                f"{steps}: on axis {number} its taps fall on {wanted.tolist()}, expected "
                f"whole numbers from 0 to {target.taps - 1}"
            )
    return products.on_axes(conv, targets)


def regroup(conv: Conv, groups: int) -> Conv:
    """The same map with fewer channel groups: its kernel expanded block-diagonally.

    Args:
        conv: the convolution.
        groups: a divisor of ``conv.groups``.

    Raises:
        NotFusableError: `groups` does not divide the present number of groups.

    Example:
        >>> regroup(Conv(jnp.ones((1, 1, 3)), groups=3), 1).kernel[0]
        Array([[1., 0., 0.],
               [0., 1., 0.],
               [0., 0., 1.]], dtype=float32)
    """
    if groups < 1 or conv.groups % groups:
        raise NotFusableError(f"cannot write {conv} with {groups} groups, no divisor of its own")
    kernel = arithmetic.expand_groups(conv.kernel, conv.groups, groups)
    return conv.replace(kernel=kernel, groups=groups)


def _sizes(size: Size, dims: int) -> tuple[int | None, ...]:
    return (None,) * dims if size is None else per_axis(size, dims, "size")


def _check_parallel(verb: str, convs: Sequence[Conv], size: Size, *, same_features: bool) -> None:
    if not convs:
        raise ValueError(f"{verb} needs at least one convolution")
    sizes = _sizes(size, convs[0].dims)
    for conv in convs[1:]:
        reasons = shapes.parallel_problems((convs[0].shape, conv.shape), sizes, same_features)
        if reasons:
            raise NotFusableError(f"cannot {verb}: {', '.join(reasons)}: {convs[0]} and {conv}")


def _check_chain(first: Conv, second: Conv, size: Size) -> None:
    sizes = _sizes(size, first.dims)
    reasons = shapes.chain_problems(first.shape, second.shape, sizes, first.bias is not None)
    if reasons:
        raise NotFusableError(f"cannot compose: {', '.join(reasons)}: {first}, then {second}")
