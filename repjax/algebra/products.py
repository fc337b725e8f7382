"""How kernels meet: placed on a lattice of taps, expanded, multiplied; arrays only."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from repjax.algebra import arithmetic
from repjax.algebra.conv import Conv
from repjax.algebra.dtypes import fold_dtype
from repjax.algebra.geometry import Axis
from repjax.algebra.shapes import Shape


def promoted(convs: Sequence[Conv]) -> tuple[Conv, ...]:
    """The same maps in one type, float32 at least."""
    leaves = [leaf for conv in convs for leaf in (conv.kernel, conv.bias) if leaf is not None]
    dtype = fold_dtype(*(leaf.dtype for leaf in leaves))
    return tuple(conv.astype(dtype) for conv in convs)


def on_axes(conv: Conv, axes: Sequence[Axis]) -> Conv:
    """The same map on lattices known to hold its taps."""
    kernel = arithmetic.place(conv.kernel, conv.axes, axes, [axis.first for axis in conv.axes])
    return from_axes(kernel, conv.bias, axes, conv.groups)


def bias_through(bias: jax.Array, conv: Conv) -> jax.Array:
    """What a constant input of `bias` becomes after `conv`, without its own bias."""
    return arithmetic.bias_through(bias, conv.kernel, conv.shape)


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


def from_shape(kernel: jax.Array, bias: jax.Array | None, shape: Shape) -> Conv:
    """A `Conv` from its `Shape`."""
    return from_axes(kernel, bias, shape.axes, shape.groups)
