"""The same map written differently: `embed` on other taps, `regroup` with fewer groups."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from repjax.algebra import arithmetic, geometry
from repjax.algebra.conv import Conv, from_shape
from repjax.algebra.errors import NotFusableError
from repjax.algebra.padding import per_axis


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
        ValueError: numbers for another number of axes.

    Example:
        >>> import jax.numpy as jnp
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
    firsts = [axis.first for axis in conv.axes]
    kernel = arithmetic.place(conv.kernel, conv.axes, targets, firsts)
    return from_shape(kernel, conv.bias, dataclasses.replace(conv.shape, axes=tuple(targets)))


def regroup(conv: Conv, groups: int) -> Conv:
    """The same map with fewer channel groups: its kernel expanded block-diagonally.

    Args:
        conv: the convolution.
        groups: a divisor of ``conv.groups``.

    Raises:
        NotFusableError: `groups` does not divide the present number of groups.

    Example:
        >>> import jax.numpy as jnp
        >>> regroup(Conv(jnp.ones((1, 1, 3)), groups=3), 1).kernel[0]
        Array([[1., 0., 0.],
               [0., 1., 0.],
               [0., 0., 1.]], dtype=float32)
    """
    if groups < 1 or conv.groups % groups:
        raise NotFusableError(f"cannot write {conv} with {groups} groups, no divisor of its own")
    kernel = arithmetic.expand_groups(conv.kernel, conv.groups, groups)
    return conv.replace(kernel=kernel, groups=groups)
