"""Convolutions without their numbers: what is legal, and the geometry that results.

`add`, `concatenate` and `compose` call these functions before they compute anything, and a
planner calls them alone. Everything is plain integers, and results are cached.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp

from repjax.algebra import geometry
from repjax.algebra.geometry import Axis

Sizes = tuple[int | None, ...]


@dataclasses.dataclass(frozen=True)
class Shape:
    """Geometry, channels and groups of a convolution.

    Args:
        axes: geometry of each spatial axis.
        in_features: number of input channels.
        features: number of output channels.
        groups: number of channel groups.
    """

    axes: tuple[Axis, ...]
    in_features: int
    features: int
    groups: int = 1

    @property
    def dims(self) -> int:
        """Number of spatial axes."""
        return len(self.axes)

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides per axis."""
        return tuple(axis.stride for axis in self.axes)

    @property
    def padding(self) -> tuple[tuple[int, int], ...]:
        """(low, high) padding per axis."""
        return tuple((axis.low, axis.high) for axis in self.axes)

    @property
    def dilation(self) -> tuple[int, ...]:
        """Dilation per axis."""
        return tuple(axis.dilation for axis in self.axes)

    @property
    def input_dilation(self) -> tuple[int, ...]:
        """Input dilation per axis."""
        return tuple(axis.input_dilation for axis in self.axes)

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """Shape of the kernel: (spatial..., in/groups, out)."""
        taps = tuple(axis.taps for axis in self.axes)
        return (*taps, self.in_features // self.groups, self.features)

    def output_size(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """Spatial output size for a spatial input size."""
        return tuple(axis.outputs(n) for axis, n in zip(self.axes, sizes, strict=True))


def argument_problems(
    kernel: jax.Array,
    bias: jax.Array | None,
    strides: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    dilation: tuple[int, ...],
    input_dilation: tuple[int, ...],
    groups: int,
) -> list[str]:
    """Why arrays and numbers do not describe a convolution; [] if they do."""
    problems = []
    if not jnp.issubdtype(kernel.dtype, jnp.inexact):
        problems.append(f"kernel has dtype {kernel.dtype}, expected a floating point type")
    if bias is not None and bias.shape != kernel.shape[-1:]:
        problems.append(f"bias has shape {bias.shape}, expected {kernel.shape[-1:]}")
    if any(number < 1 for number in strides + dilation + input_dilation):
        problems.append(
            f"strides {strides}, dilation {dilation} and input dilation {input_dilation} "
            "must be at least 1"
        )
    if any(taps < 1 for taps in kernel.shape[:-2]):
        problems.append(f"kernel of shape {kernel.shape} has an axis without taps")
    if groups < 1 or kernel.shape[-1] % groups:
        problems.append(f"{kernel.shape[-1]} output channels do not divide into {groups} groups")
    return problems


@functools.lru_cache(maxsize=4096)
def parallel_problems(
    shapes: tuple[Shape, ...], sizes: Sizes, same_features: bool
) -> tuple[str, ...]:
    """Why convolutions of one input cannot be summed (or stacked on channels); () if they can."""
    one = shapes[0]
    problems: list[str] = []
    for two in shapes[1:]:
        if one.dims != two.dims:
            problems.append("numbers of spatial axes differ")
        elif one.in_features != two.in_features:
            problems.append("input channels differ")
        elif same_features and one.features != two.features:
            problems.append("output channels differ")
        elif one.strides != two.strides:
            problems.append("strides differ")
        elif one.input_dilation != two.input_dilation:
            problems.append("input dilation differs")
        else:
            for number, (a, b, size) in enumerate(zip(one.axes, two.axes, sizes, strict=True)):
                if not geometry.same_outputs(a, b, size):
                    known = "some input sizes" if size is None else f"input size {size}"
                    problems.append(f"output sizes differ on axis {number} for {known}")
    return tuple(problems)


@functools.lru_cache(maxsize=4096)
def chain_problems(first: Shape, second: Shape, sizes: Sizes, biased: bool) -> tuple[str, ...]:
    """Why `second` after `first` is no convolution; () if it is one.

    With ``biased=False`` only the kernel of `first` is judged, not its bias.
    """
    if first.dims != second.dims:
        return ("numbers of spatial axes differ",)
    if first.features != second.in_features:
        return ("channels do not fit",)
    problems = []
    for number, (one, two, size) in enumerate(zip(first.axes, second.axes, sizes, strict=True)):
        if two.input_dilation > 1 and one.stride > 1:
            problems.append(f"axis {number}: strided, then dilated input")
        elif two.input_dilation > 1 and biased:
            problems.append(f"axis {number}: bias meets the zeros of a dilated input")
        else:
            moved = geometry.before_input_dilation(one, two)
            outside, loses = geometry.border(*moved, size)
            if size is not None and geometry.empties(*moved, size):
                problems.append(f"axis {number}: padding of an image of no pixels")
            elif loses:
                problems.append(f"axis {number}: zero padding between two spatial kernels")
            elif outside and biased:
                problems.append(f"axis {number}: bias meets zero padding")
    return tuple(problems)


def bias_shape(features: int, dims: int) -> Shape:
    """Shape of the convolution that makes a bias of an image of ones."""
    return Shape((Axis(1),) * dims, 1, features)


def common_axes(shapes: tuple[Shape, ...]) -> tuple[Axis, ...]:
    """The coarsest lattices of taps that hold all of them."""
    return tuple(
        geometry.union(axes) for axes in zip(*(shape.axes for shape in shapes), strict=True)
    )


def chain_axes(first: Shape, second: Shape) -> tuple[list[tuple[Axis, Axis]], list[Axis], int]:
    """Pairs of axes with input dilation in front, axes of the composition, common groups."""
    pairs = [
        geometry.before_input_dilation(one, two)
        for one, two in zip(first.axes, second.axes, strict=True)
    ]
    axes = [geometry.composition(one, two) for one, two in pairs]
    return pairs, axes, math.gcd(first.groups, second.groups)


@functools.lru_cache(maxsize=4096)
def sum_shape(shapes: tuple[Shape, ...]) -> Shape:
    """Shape of the sum."""
    groups = math.gcd(*(shape.groups for shape in shapes))
    return dataclasses.replace(shapes[0], axes=common_axes(shapes), groups=groups)


@functools.lru_cache(maxsize=4096)
def stack_shape(shapes: tuple[Shape, ...]) -> Shape:
    """Shape of the stack on output channels."""
    groups = 1 if len(shapes) > 1 else shapes[0].groups
    features = sum(shape.features for shape in shapes)
    return Shape(common_axes(shapes), shapes[0].in_features, features, groups)


@functools.lru_cache(maxsize=4096)
def chain_shape(first: Shape, second: Shape) -> Shape:
    """Shape of `second` after `first`."""
    _, axes, groups = chain_axes(first, second)
    return Shape(tuple(axes), first.in_features, second.features, groups)
