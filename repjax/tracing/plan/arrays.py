"""What merged forms do with arrays besides convolutions and products: pools, views, layouts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from repjax.tracing.linear.forms import Mean
from repjax.tracing.linear.maps import Map
from repjax.tracing.linear.roles import Layout


def to_standard(x: jax.Array, layout: Layout) -> jax.Array:
    """(one batch axis, spatial..., channels)."""
    x = jnp.transpose(x, (*layout.batch, *layout.space, layout.channel))
    count: Any = 1
    for size in x.shape[: len(layout.batch)]:
        count = count * size
    return x.reshape((count, *x.shape[len(layout.batch) :]))


def averaged(x: jax.Array, mean: Mean) -> jax.Array:
    """The mean over some axes, or the sum where its 1/N is elsewhere."""
    total: jax.Array = lax.reduce_sum(x.astype(mean.dtype), mean.axes)
    if not mean.divided:
        return total
    return jnp.divide(total, jnp.asarray(mean.count, mean.dtype))


def pooled(x: jax.Array, window: Map, layout: Layout) -> jax.Array:
    """The sum or the average over a window."""
    taps, strides, dilation = [1] * x.ndim, [1] * x.ndim, [1] * x.ndim
    padding, spread = [(0, 0)] * x.ndim, [1] * x.ndim
    for place, axis in zip(layout.space, window.shape.axes, strict=True):
        taps[place], strides[place], dilation[place] = axis.taps, axis.stride, axis.dilation
        padding[place], spread[place] = (axis.low, axis.high), axis.input_dilation
    zero = np.zeros((), x.dtype)
    sums: jax.Array
    sums = lax.reduce_window(x, zero, lax.add, taps, strides, padding, spread, dilation)
    return sums / jnp.asarray(window.taps, x.dtype) if window.is_average else sums


def viewed(x: jax.Array, view: Map, layout: Layout, sizes: Sequence[Any]) -> jax.Array:
    """Pad, crop and take every so many pixels, then choose channels."""
    config, strides = [(0, 0, 0)] * x.ndim, [1] * x.ndim
    for place, axis, size in zip(layout.space, view.shape.axes, sizes, strict=True):
        if (axis.low, axis.high, axis.stride, axis.input_dilation) == (0, 0, 1, 1):
            continue
        wanted = (size - 1) * axis.stride + 1
        high = wanted - axis.low - axis.dilated(x.shape[place])
        config[place] = (axis.low, high, axis.input_dilation - 1)
        strides[place] = axis.stride
    if any(any(entry) for entry in config):
        x = lax.pad(x, jnp.zeros((), x.dtype), config)
    if any(stride != 1 for stride in strides):
        x = lax.slice(x, [0] * x.ndim, x.shape, strides)
    return x if view.keeps_channels else _chosen(x, view.chosen or (), layout.channel)


def _chosen(x: jax.Array, chosen: Sequence[int], axis: int) -> jax.Array:
    start, count = chosen[0], len(chosen)
    if list(chosen) == list(range(start, start + count)):
        return lax.slice_in_dim(x, start, start + count, axis=axis)
    if list(chosen) == list(range(x.shape[axis]))[::-1]:
        return lax.rev(x, (axis,))
    return jnp.take(x, np.asarray(chosen, np.int32), axis=axis, mode="clip")


def placed(image: jax.Array, layout: Layout, rank: int) -> jax.Array:
    """An image (spatial..., channels) on the axes of a value, one example."""
    order = (*layout.space, layout.channel)
    image = jnp.transpose(image, [order.index(axis) for axis in sorted(order)])
    return jnp.expand_dims(image, [axis for axis in range(rank) if axis not in order])


def along(vector: jax.Array, axis: int, rank: int) -> jax.Array:
    """A vector that broadcasts against arrays along one of their axes."""
    shape = [1] * rank
    shape[axis] = -1
    return vector.reshape(shape)
