"""Maps: convolutions without bias whose geometry is known and whose numbers are weights."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from repjax.algebra.geometry import Axis
from repjax.algebra.shapes import Shape
from repjax.tracing.linear.vectors import Vectors, is_all
from repjax.tracing.program.weights import Weight


@dataclasses.dataclass(frozen=True)
class Map:
    """A convolution without bias.

    Args:
        shape: geometry, channels, groups.
        kernel: the weight (spatial..., in/groups, out).
        scale: where the map is a scale per channel and nothing else, its vector.
        chosen: where every output is one input channel, unscaled, which; -1 is a zero.
        is_window: whether it is the sum over a window, the same for every channel.
        is_average: whether it is the average over a window.
        stages: the same map as the sum or average over a window, then a map of one tap.
    """

    shape: Shape
    kernel: Weight
    scale: Weight | None = None
    chosen: tuple[int, ...] | None = None
    is_window: bool = False
    is_average: bool = False
    stages: tuple[Map, Map] | None = None

    @property
    def is_pointwise(self) -> bool:
        """Whether every output pixel reads the pixel at its own place and nothing else."""
        return all(axis == Axis(1) for axis in self.shape.axes)

    @property
    def keeps_channels(self) -> bool:
        """Whether it copies numbers, each to its own channel: a pad, crop or stride."""
        return self.chosen is not None and self.chosen == tuple(range(self.shape.in_features))

    @property
    def is_identity(self) -> bool:
        """Whether the map gives back its input."""
        return self.keeps_channels and self.is_pointwise

    @property
    def taps(self) -> int:
        """Number of taps of its kernel."""
        return math.prod(axis.taps for axis in self.shape.axes)

    @property
    def is_permutation(self) -> bool:
        """Whether it gives every channel another place, and every pixel its own."""
        return (
            self.chosen is not None
            and self.is_pointwise
            and sorted(self.chosen) == list(range(self.shape.in_features))
        )


@dataclasses.dataclass(frozen=True)
class Maps(Vectors):
    """Constructors of maps."""

    def identity(self, features: int, dims: int) -> Map:
        """The identity."""
        return self.window(features, [Axis(1)] * dims)

    def window(self, features: int, axes: Sequence[Axis]) -> Map:
        """The sum over a window, channel by channel; with one tap a view of the input."""
        shape = Shape(tuple(axes), features, features, features)
        kernel = self.weights.node(
            "ones",
            run=lambda: jnp.ones(shape.kernel_shape, jnp.float32),
            static=shape.kernel_shape,
            shape=shape.kernel_shape,
            dtype=np.dtype(np.float32),
        )
        one_tap = all(axis.taps == 1 for axis in axes)
        chosen = tuple(range(features)) if one_tap else None
        return Map(shape, kernel, chosen=chosen, is_window=True)

    def average(self, window: Map) -> Map:
        """The average over the window that a map is the sum over."""
        if window.taps == 1:
            return window
        shape = window.shape
        kernel = self.weights.node(
            "averages",
            run=lambda: jnp.full(shape.kernel_shape, 1.0 / window.taps),
            static=shape.kernel_shape,
            shape=shape.kernel_shape,
            dtype=np.dtype(np.float32),
        )
        return Map(shape, kernel, is_average=True)

    def view(self, chosen: Sequence[int], features: int, axes: Sequence[Axis]) -> Map:
        """Some of the channels in some order, padded, cropped or strided; -1 is a zero."""
        if tuple(chosen) == tuple(range(features)):
            return self.window(features, axes)
        shape = Shape(tuple(axes), features, len(chosen))
        matrix = np.asarray(chosen) == np.arange(features)[:, None]
        kernel = self.weights.node(
            "choice",
            run=lambda: jnp.asarray(matrix.reshape(shape.kernel_shape), jnp.float32),
            static=(len(axes), tuple(chosen), features),
            shape=shape.kernel_shape,
            dtype=np.dtype(np.float32),
        )
        return Map(shape, kernel, chosen=tuple(chosen))

    def select(self, chosen: Sequence[int], features: int, dims: int) -> Map:
        """Some of the channels in some order; -1 stands for a channel of zeros."""
        return self.view(chosen, features, [Axis(1)] * dims)

    def scaled(self, vector: Weight, dims: int) -> Map:
        """A scale per channel."""
        (features,) = vector.shape or ()
        if is_all(vector, 1.0):
            return self.identity(features, dims)
        shape = Shape((Axis(1),) * dims, features, features, features)
        return Map(shape, self.reshaped(vector, shape.kernel_shape), scale=vector)

    def bias_map(self, bias: Weight, dims: int) -> Map:
        """The map of an image of ones that gives `bias` where the image is."""
        shape = Shape((Axis(1),) * dims, 1, (bias.shape or ())[0])
        return Map(shape, self.reshaped(bias, shape.kernel_shape))

    def of_kernel(self, kernel: Weight, order: Sequence[int], shape: Shape) -> Map:
        """A convolution whose kernel is the weight with its axes put in `order`."""
        kernel = self.wide(kernel)
        marked = self.weights.node(
            *("kernel", [kernel]),
            lambda value: jnp.transpose(value, order).reshape(shape.kernel_shape),
            static=(tuple(order), shape.kernel_shape),
            shape=shape.kernel_shape,
            dtype=kernel.dtype,
            kernel=True,
        )
        return Map(shape, marked)

    def reshaped(self, weight: Weight, shape: tuple[int, ...]) -> Weight:
        """A weight in another shape."""
        return self.weights.node(
            *("as kernel", [weight], lambda value: jnp.reshape(value, shape)),
            static=shape,
            shape=shape,
            dtype=weight.dtype,
        )
