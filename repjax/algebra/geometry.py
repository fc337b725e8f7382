"""Integer arithmetic of one spatial axis of a convolution: which input each tap reads.

With low padding p, stride s and dilation d, output o reads at tap u the position
``o * s + offset`` of the (dilated) input, where ``offset = u * d - p``. Everything the
algebra decides (rules R1 to R3) follows from these offsets and the number of outputs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Axis:
    """Geometry of one spatial axis of a convolution.

    Args:
        taps: number of taps.
        stride: distance between outputs.
        low: padding before the first pixel.
        high: padding after the last pixel.
        dilation: distance between taps.
        input_dilation: distance between input pixels.
    """

    taps: int
    stride: int = 1
    low: int = 0
    high: int = 0
    dilation: int = 1
    input_dilation: int = 1

    @property
    def step(self) -> int:
        """Distance between neighboring taps; 0 for a single tap, whatever its dilation."""
        return self.dilation if self.taps > 1 else 0

    @property
    def first(self) -> int:
        """Offset of the first tap."""
        return -self.low

    @property
    def last(self) -> int:
        """Offset of the last tap."""
        return (self.taps - 1) * self.dilation - self.low

    @property
    def excess(self) -> int:
        """The number e in ``outputs = (dilated input + e) // stride + 1``."""
        return self.low + self.high - (self.taps - 1) * self.dilation - 1

    def dilated(self, size: int) -> int:
        """Length of an input of `size` after input dilation."""
        return (size - 1) * self.input_dilation + 1 if size > 0 else 0

    def outputs(self, size: int) -> int:
        """Number of outputs for an input of `size`."""
        return max((self.dilated(size) + self.excess) // self.stride + 1, 0)

    def offsets(self) -> np.ndarray:
        """Offset of every tap, in order."""
        return np.arange(self.taps) * self.dilation - self.low


def on_lattice(
    first: int, last: int, step: int, *, stride: int, excess: int, input_dilation: int
) -> Axis:
    """The axis whose taps run from offset `first` to `last` in steps, with that output size."""
    step = step or 1
    return Axis(
        taps=(last - first) // step + 1,
        stride=stride,
        low=-first,
        high=excess + last + 1,
        dilation=step,
        input_dilation=input_dilation,
    )


def union(axes: Sequence[Axis]) -> Axis:
    """The coarsest lattice of taps that holds the taps of all `axes` (rule R1)."""
    first = min(axis.first for axis in axes)
    step = math.gcd(*(axis.step for axis in axes), *(axis.first - first for axis in axes))
    return on_lattice(
        first,
        max(axis.last for axis in axes),
        step,
        stride=axes[0].stride,
        excess=axes[0].excess,
        input_dilation=axes[0].input_dilation,
    )


def same_outputs(one: Axis, two: Axis, size: int | None) -> bool:
    """Whether both have equal output sizes: for one input size, or with None for every one."""
    if size is not None:
        return one.outputs(size) == two.outputs(size)
    # The number of outputs is periodic in the input size up to a linear term.
    lengths = [1 + period * one.input_dilation for period in range(one.stride)]
    return all(
        (length + one.excess) // one.stride == (length + two.excess) // two.stride
        for length in lengths
    )


def before_input_dilation(first: Axis, second: Axis) -> tuple[Axis, Axis]:
    """Move the input dilation of `second` in front of `first`, whose stride must be 1."""
    factor = second.input_dilation
    if factor == 1:
        return first, second
    moved = on_lattice(
        first.first * factor,
        first.last * factor,
        first.step * factor,
        stride=1,
        excess=(1 + first.excess) * factor - 1,
        input_dilation=first.input_dilation * factor,
    )
    return moved, dataclasses.replace(second, input_dilation=1)


def composition(first: Axis, second: Axis) -> Axis:
    """The lattice of `second` after `first`: taps ``v * d2 * s1 + u * d1`` (rule R3)."""
    stride = first.stride
    return on_lattice(
        first.first + second.first * stride,
        first.last + second.last * stride,
        math.gcd(first.step, second.step * stride),
        stride=stride * second.stride,
        excess=first.excess + stride * (1 + second.excess),
        input_dilation=first.input_dilation,
    )


def empties(first: Axis, second: Axis, size: int) -> bool:
    """Whether `second` after `first` has another output size than their composition.

    This happens where `first` leaves no pixel for `second` to pad.
    """
    return composition(first, second).outputs(size) != second.outputs(first.outputs(size))


def border(first: Axis, second: Axis, size: int | None) -> tuple[bool, bool]:
    """What happens where `second` reads outside the outputs of `first`.

    The first result says whether it reads there at all: zero padding would then take the
    place of a bias of `first`. The second says whether `first`, continued to one of those
    places, would read the image: zero padding would then take the place of its kernel's
    result. With ``size=None`` each is true if it is true for some size.
    """
    if size is not None:
        sizes = [size]
    else:
        reach = first.taps * first.dilation + second.taps * second.dilation * first.stride
        large = 2 * reach + abs(first.low) + abs(first.high) + first.stride * second.stride
        large += first.stride * (abs(second.low) + abs(second.high))
        sizes = [large + more for more in range(first.stride * second.stride)]
    reads_outside = loses_kernel = False
    for number in sizes:
        middle = first.outputs(number)
        starts = np.arange(second.outputs(middle)) * second.stride
        reads = np.unique(starts[:, None] + second.offsets()[None, :])
        outside = reads[(reads < 0) | (reads >= middle)]
        places = outside[:, None] * first.stride + first.offsets()[None, :]
        real = (places >= 0) & (places < first.dilated(number))
        real &= places % first.input_dilation == 0
        reads_outside |= bool(outside.size)
        loses_kernel |= bool(real.any())
    return reads_outside, loses_kernel
