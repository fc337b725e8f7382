"""The numbers of kernels: sums, stacks and chains of arrays, and images of ones.

Arrays and their `Shape` only. Nothing is checked here: the caller has asked `shapes` whether
the result exists. The numbers depend on taps, low padding, strides and dilations, never on
high padding; and on the size of an image only where one is written out. Kernels are merged in
float32 at least, at the highest precision, and no convolution is run for it.

Kernels have the shape ``Shape.kernel_shape``: (spatial..., in/groups, out). Biases are (out,).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from repjax.algebra import shapes as rules
from repjax.algebra.dtypes import fold_dtype
from repjax.algebra.geometry import Axis
from repjax.algebra.shapes import Shape


def add_kernels(kernels: Sequence[jax.Array], shapes: Sequence[Shape]) -> jax.Array:
    """The kernel of a sum of convolutions, on ``sum_shape(shapes)``."""
    return functools.reduce(jnp.add, _together(kernels, shapes, rules.sum_shape(tuple(shapes))))


def stack_kernels(kernels: Sequence[jax.Array], shapes: Sequence[Shape]) -> jax.Array:
    """The kernel of convolutions stacked on output channels, on ``stack_shape(shapes)``."""
    parts = _together(kernels, shapes, rules.stack_shape(tuple(shapes)))
    return jnp.concatenate(parts, axis=-1)


def compose_kernels(
    first: jax.Array, first_shape: Shape, second: jax.Array, second_shape: Shape
) -> jax.Array:
    """The kernel of `second` after `first`, on ``chain_shape(first_shape, second_shape)``."""
    first, second = promoted(first, second)
    pairs, targets, groups = rules.chain_axes(first_shape, second_shape)
    blocks1, blocks2 = first_shape.groups // groups, second_shape.groups // groups
    if min(blocks1, blocks2) > 1:
        second, blocks2 = expand_groups(second, second_shape.groups, groups), 1
    # Channels of the middle split as (groups, blocks of first, blocks of second, rest);
    # one of the two block counts is 1.
    rest = first_shape.features // (groups * blocks1 * blocks2)
    *space1, inputs, _ = first.shape
    *space2, _, outputs = second.shape
    kernel1 = first.reshape(*space1, inputs, groups, blocks1, blocks2, rest)
    kernel2 = second.reshape(*space2, blocks1, rest, groups, blocks2, -1)
    product = functools.partial(jnp.einsum, precision=lax.Precision.HIGHEST)
    ones, twos = [one for one, _ in pairs], [two for _, two in pairs]
    shifted = math.prod(space2) <= math.prod(space1)  # loop over the smaller kernel's taps
    terms = []
    for tap in np.ndindex(*(space2 if shifted else space1)):
        if shifted:
            term = product("...igrsm,rmgso->...rigso", kernel1, kernel2[tap])
            steps = ones
        else:
            term = product("igrsm,...rmgso->...rigso", kernel1[tap], kernel2)
            steps = [
                Axis(two.taps, dilation=two.dilation * one.stride)
                for one, two in zip(ones, twos, strict=True)
            ]
        term = term.reshape(*term.shape[: len(space1)], blocks1 * inputs, outputs)
        firsts = [
            one.first + two.first * one.stride + index * (two.dilation * one.stride)
            if shifted
            else one.first + two.first * one.stride + index * one.dilation
            for one, two, index in zip(ones, twos, tap, strict=True)
        ]
        terms.append(place(term, steps, targets, firsts))
    return functools.reduce(jnp.add, terms)


def bias_through(bias: jax.Array, kernel: jax.Array, shape: Shape) -> jax.Array:
    """The output (out,) for a constant input of `bias` (in,), where no tap meets padding."""
    bias, kernel = promoted(bias, kernel)
    total = kernel.sum(axis=tuple(range(shape.dims)))
    split = total.reshape(total.shape[0], shape.groups, -1)
    return jnp.einsum(
        "gi,igo->go",
        bias.reshape(shape.groups, -1),
        split,
        precision=lax.Precision.HIGHEST,
    ).reshape(-1)


def written_out(kernel: jax.Array, shape: Shape, sizes: Sequence[int]) -> jax.Array:
    """The output for an image of ones: (spatial outputs..., features).

    Outputs that meet ones at the same taps are equal, so each axis has a few distinct rows
    (low border, interior, high border): these are summed, then repeated.

    Args:
        kernel: (spatial..., 1, features).
        shape: shape of the convolution.
        sizes: spatial size of the image. Where one is a symbolic dimension, the rows are not
            known while tracing, and an image of ones is convolved instead.
    """
    (kernel,) = promoted(kernel)
    if not all(isinstance(size, int | np.integer) for size in sizes):
        return convolved(jnp.ones((1, *sizes, 1), kernel.dtype), kernel, shape)[0]
    rows = kernel[..., 0, :]
    which = []
    for number, (axis, size) in enumerate(zip(shape.axes, sizes, strict=True)):
        meets, repeats = _distinct_rows(axis, int(size))
        mask = meets.reshape(*meets.shape, *(1,) * (shape.dims - number))
        spread = jnp.expand_dims(rows, number)
        rows = jnp.where(mask, spread, jnp.zeros((), spread.dtype)).sum(axis=number + 1)
        which.append(repeats)
    for number, repeats in enumerate(which):
        rows = _repeated(rows, repeats, number)
    return rows


def convolved(
    x: jax.Array, kernel: jax.Array, shape: Shape, precision: lax.PrecisionLike = "highest"
) -> jax.Array:
    """Convolve data (batch, spatial..., in) with `kernel`, which has the same dtype."""
    dims = shape.dims
    spatial = tuple(range(1, dims + 1))
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=shape.strides,
        padding=shape.padding,
        lhs_dilation=shape.input_dilation,
        rhs_dilation=shape.dilation,
        dimension_numbers=lax.ConvDimensionNumbers(
            lhs_spec=(0, dims + 1, *spatial),
            rhs_spec=(dims + 1, dims, *range(dims)),
            out_spec=(0, dims + 1, *spatial),
        ),
        feature_group_count=shape.groups,
        precision=precision,
    )


def sum_present(biases: Sequence[jax.Array | None]) -> jax.Array | None:
    """The sum of the biases that are not None; None where all are."""
    present = [bias for bias in biases if bias is not None]
    return functools.reduce(jnp.add, present) if present else None


def promoted(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """The same arrays in one dtype, float32 at least."""
    dtype = fold_dtype(*(array.dtype for array in arrays))
    return tuple(array.astype(dtype) for array in arrays)


def expand_groups(kernel: jax.Array, groups: int, fewer: int) -> jax.Array:
    """The block-diagonal kernel with `fewer` groups, a divisor of `groups`, of the same map."""
    blocks = groups // fewer
    if blocks == 1:
        return kernel
    *spatial, inputs, outputs = kernel.shape
    split = kernel.reshape(*spatial, 1, inputs, fewer, blocks, outputs // groups)
    diagonal = jnp.eye(blocks, dtype=bool)[:, None, None, :, None]
    expanded = jnp.where(diagonal, split, jnp.zeros((), split.dtype))
    return expanded.reshape(*spatial, blocks * inputs, outputs)


def place(
    kernel: jax.Array, axes: Sequence[Axis], targets: Sequence[Axis], firsts: Sequence[int]
) -> jax.Array:
    """Write a kernel with the steps of `axes`, its first taps at `firsts`, onto `targets`."""
    config = []
    for axis, target, first in zip(axes, targets, firsts, strict=True):
        factor = axis.step // target.dilation or 1
        before = (first - target.first) // target.dilation
        after = target.taps - 1 - before - (axis.taps - 1) * factor
        config.append((before, after, factor - 1))
    return lax.pad(kernel, jnp.zeros((), kernel.dtype), [*config, (0, 0, 0), (0, 0, 0)])


def _together(
    kernels: Sequence[jax.Array], shapes: Sequence[Shape], target: Shape
) -> list[jax.Array]:
    """Kernels in one type, with the groups of `target`, on its lattice."""
    return [
        place(
            expand_groups(kernel, shape.groups, target.groups),
            shape.axes,
            target.axes,
            [axis.first for axis in shape.axes],
        )
        for kernel, shape in zip(promoted(*kernels), shapes, strict=True)
    ]


def _distinct_rows(axis: Axis, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Sets of taps that meet a one, (rows, taps), and the row of every output."""
    starts = np.arange(axis.outputs(size)) * axis.stride
    places = starts[:, None] + axis.offsets()[None, :]
    inside = (places >= 0) & (places < axis.dilated(size)) & (places % axis.input_dilation == 0)
    _, seen, inverse = np.unique(inside, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(seen)  # by first appearance, so that most rows can be sliced
    return inside[seen[order]], np.argsort(order)[inverse.reshape(-1)]


def _repeated(rows: jax.Array, which: np.ndarray, number: int) -> jax.Array:
    """``rows[which]`` on axis `number`: border rows, one row broadcast, border rows."""
    if not which.size:
        return rows
    edges = np.flatnonzero(np.diff(which, prepend=-1, append=-1))
    longest = int(np.argmax(np.diff(edges)))
    start, stop = int(edges[longest]), int(edges[longest + 1])
    row = lax.slice_in_dim(rows, int(which[start]), int(which[start]) + 1, axis=number)
    wide = (*rows.shape[:number], stop - start, *rows.shape[number + 1 :])
    interior = jnp.broadcast_to(row, wide)
    borders = [_taken(rows, part, number) for part in (which[:start], which[stop:])]
    return jnp.concatenate([borders[0], interior, borders[1]], axis=number)


def _taken(rows: jax.Array, which: np.ndarray, number: int) -> jax.Array:
    first = int(which[0]) if which.size else 0
    if np.array_equal(which, np.arange(first, first + which.size)):
        return lax.slice_in_dim(rows, first, first + which.size, axis=number)
    return jnp.take(rows, which, axis=number, mode="clip")
