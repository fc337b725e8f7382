"""How kernels meet: placed on a lattice of taps, expanded, multiplied; arrays only."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from repjax.algebra.conv import Conv
from repjax.algebra.dtypes import fold_dtype
from repjax.algebra.geometry import Axis


def promoted(convs: Sequence[Conv]) -> tuple[Conv, ...]:
    """The same maps in one type, float32 at least."""
    leaves = [leaf for conv in convs for leaf in (conv.kernel, conv.bias) if leaf is not None]
    dtype = fold_dtype(*(leaf.dtype for leaf in leaves))
    return tuple(conv.astype(dtype) for conv in convs)


def on_axes(conv: Conv, axes: Sequence[Axis]) -> Conv:
    """The same map on lattices known to hold its taps."""
    kernel = place(conv.kernel, conv.axes, axes, [axis.first for axis in conv.axes])
    return from_axes(kernel, conv.bias, axes, conv.groups)


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


def compose_kernels(
    first: Conv,
    second: Conv,
    groups: int,
    pairs: Sequence[tuple[Axis, Axis]],
    targets: Sequence[Axis],
) -> jax.Array:
    """The kernel of `second` after `first`, on `targets`; one has exactly `groups` groups."""
    # Channels of the middle split as (groups, blocks of first, blocks of second, rest);
    # one of the two block counts is 1.
    blocks1, blocks2 = first.groups // groups, second.groups // groups
    rest = first.features // (groups * blocks1 * blocks2)
    *space1, inputs, _ = first.kernel.shape
    *space2, _, outputs = second.kernel.shape
    kernel1 = first.kernel.reshape(*space1, inputs, groups, blocks1, blocks2, rest)
    kernel2 = second.kernel.reshape(*space2, blocks1, rest, groups, blocks2, -1)
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
        term = term.reshape(*term.shape[: first.dims], blocks1 * inputs, outputs)
        firsts = [
            one.first + two.first * one.stride + index * (two.dilation * one.stride)
            if shifted
            else one.first + two.first * one.stride + index * one.dilation
            for one, two, index in zip(ones, twos, tap, strict=True)
        ]
        terms.append(place(term, steps, targets, firsts))
    return functools.reduce(jnp.add, terms)


def bias_through(bias: jax.Array, conv: Conv) -> jax.Array:
    """What a constant input of `bias` becomes after `conv`, without its own bias."""
    total = conv.kernel.sum(axis=tuple(range(conv.dims)))
    split = total.reshape(total.shape[0], conv.groups, -1)
    return jnp.einsum(
        "gi,igo->go",
        bias.reshape(conv.groups, -1),
        split,
        precision=lax.Precision.HIGHEST,
    ).reshape(-1)


def sum_present(biases: Sequence[jax.Array | None]) -> jax.Array | None:
    """The sum of the biases that are there."""
    present = [bias for bias in biases if bias is not None]
    return functools.reduce(jnp.add, present) if present else None


def from_axes(kernel: jax.Array, bias: jax.Array | None, axes: Sequence[Axis], groups: int) -> Conv:
    """A `Conv` from its geometry axis by axis."""
    return Conv(
        kernel,
        bias,
        strides=[axis.stride for axis in axes],
        padding=[(axis.low, axis.high) for axis in axes],
        dilation=[axis.dilation for axis in axes],
        input_dilation=[axis.input_dilation for axis in axes],
        groups=groups,
    )
