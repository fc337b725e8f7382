"""Convolutions of one input as one: `add` sums them, `concatenate` stacks their channels."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax.numpy as jnp

from repjax.algebra import arithmetic, shapes
from repjax.algebra.conv import Conv, from_shape, in_one_type
from repjax.algebra.errors import NotFusableError
from repjax.algebra.padding import Size, sizes_or_any


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
        NotFusableError: numbers of axes, channels, strides, input dilation or output sizes
            differ.
        ValueError: no convolutions, or a `size` for another number of axes.

    Example:
        >>> big = Conv(jnp.ones((3, 3, 1, 1)), padding=1)
        >>> add(big, Conv(jnp.ones((1, 1, 1, 1)))).kernel[:, :, 0, 0]
        Array([[1., 1., 1.],
               [1., 2., 1.],
               [1., 1., 1.]], dtype=float32)
    """
    _check_parallel("add", convs, size, same_features=True)
    convs = in_one_type(*convs)
    parts = tuple(conv.shape for conv in convs)
    kernel = arithmetic.add_kernels([conv.kernel for conv in convs], parts)
    bias = arithmetic.sum_present([conv.bias for conv in convs])
    return from_shape(kernel, bias, shapes.sum_shape(parts))


def concatenate(*convs: Conv, size: Size = None) -> Conv:
    """Convolutions of the same input, stacked on output channels, as one convolution.

    Args:
        *convs: at least one `Conv`, with equal input channels, strides and numbers of
            outputs; several convolutions come out with one channel group.
        size: spatial input size in pixels, or None: then outputs must agree for every size.

    Raises:
        NotFusableError: numbers of axes, input channels, strides, input dilation or output
            sizes differ.
        ValueError: no convolutions, or a `size` for another number of axes.

    Example:
        >>> concatenate(Conv(jnp.ones((1, 2, 3))), Conv(jnp.ones((1, 2, 4)))).features
        7
    """
    _check_parallel("concatenate", convs, size, same_features=False)
    convs = in_one_type(*convs)
    parts = tuple(conv.shape for conv in convs)
    kernel = arithmetic.stack_kernels([conv.kernel for conv in convs], parts)
    bias = None
    if any(conv.bias is not None for conv in convs):
        zeros = functools.partial(jnp.zeros, dtype=kernel.dtype)
        bias = jnp.concatenate(
            [zeros(conv.features) if conv.bias is None else conv.bias for conv in convs]
        )
    return from_shape(kernel, bias, shapes.stack_shape(parts))


def _check_parallel(verb: str, convs: Sequence[Conv], size: Size, *, same_features: bool) -> None:
    if not convs:
        raise ValueError(f"{verb} needs at least one convolution")
    sizes = sizes_or_any(size, convs[0].dims)
    for conv in convs[1:]:
        reasons = shapes.parallel_problems((convs[0].shape, conv.shape), sizes, same_features)
        if reasons:
            raise NotFusableError(f"cannot {verb}: {', '.join(reasons)}: {convs[0]} and {conv}")
