"""Maps: convolutions without bias whose geometry is known and whose numbers are weights.

Everything is built with `repjax.algebra`: the geometry now, the numbers when they are asked
for. Legality is the caller's business.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from repjax.algebra import arithmetic, shapes
from repjax.algebra.dtypes import common_dtype
from repjax.algebra.geometry import Axis
from repjax.algebra.shapes import Shape
from repjax.tracing.linear.vectors import Vectors, is_all
from repjax.tracing.program.weights import Weight


@dataclasses.dataclass(frozen=True)
class Map:
    """A convolution without bias.

    Attributes:
        shape: geometry, channels, groups.
        kernel: the weight (spatial..., in/groups, out).
        scale: where the map is a scale per channel and nothing else, its vector.
        chosen: where every output is one input channel, unscaled, which; -1 is a zero.
        is_window: whether it is the sum over a window, the same for every channel.
        stages: the same map as a window, followed by a map of one tap.
    """

    shape: Shape
    kernel: Weight
    scale: Weight | None = None
    chosen: tuple[int, ...] | None = None
    is_window: bool = False
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
    def is_permutation(self) -> bool:
        """Whether it gives every channel another place, and every pixel its own."""
        return (
            self.chosen is not None
            and self.is_pointwise
            and sorted(self.chosen) == list(range(self.shape.in_features))
        )


@dataclasses.dataclass(frozen=True)
class Maps(Vectors):
    """Constructors and verbs of maps."""

    # Constructors.

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
        return Map(shape, self._reshaped(vector, shape.kernel_shape), scale=vector)

    def bias_map(self, bias: Weight, dims: int) -> Map:
        """The map of an image of ones that gives `bias` where the image is."""
        shape = Shape((Axis(1),) * dims, 1, (bias.shape or ())[0])
        return Map(shape, self._reshaped(bias, shape.kernel_shape))

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

    # Verbs.

    def compose(self, first: Map, second: Map) -> Map:
        """`second` after `first`, known to be legal."""
        if first.is_identity:
            return second
        if second.is_identity:
            return first
        shape = shapes.chain_shape(first.shape, second.shape)
        if first.scale is not None and second.scale is not None:
            return self.scaled(self.arithmetic("mul", first.scale, second.scale), shape.dims)
        if first.chosen is not None and second.chosen is not None:
            chosen = [-1 if c < 0 else first.chosen[c] for c in second.chosen]
            return self.view(chosen, shape.in_features, shape.axes)
        if second.chosen is not None and second.is_pointwise and first.shape.groups == 1:
            return Map(shape, self.picked(first.kernel, second.chosen))
        kernel = self._of_kernels(
            "compose",
            [first, second],
            shape,
            lambda one, two: arithmetic.compose_kernels(one, first.shape, two, second.shape),
        )
        return Map(shape, kernel, stages=self._stages(first, second))

    def _stages(self, first: Map, second: Map) -> tuple[Map, Map] | None:
        """A window can go first wherever maps of one tap stand beside it."""
        if first.stages is not None and second.is_pointwise:
            window, rest = first.stages
            return window, self.compose(rest, second)
        if first.is_window and second.is_pointwise and not first.chosen:
            return first, second
        if second.is_window and first.is_pointwise and not second.chosen:
            return self.window(first.shape.in_features, second.shape.axes), first
        return None

    def sum_maps(self, maps: Sequence[Map]) -> Map:
        """The sum of maps, known to be legal."""
        if len(maps) == 1:
            return maps[0]
        maps = sorted(maps, key=lambda one: one.kernel.number)
        given = tuple(one.shape for one in maps)
        shape = shapes.sum_shape(given)
        if all(one.scale is not None or one.is_identity for one in maps):
            vectors = [one.scale or self.full(1.0, shape.features) for one in maps]
            total = self.total(vectors)
            assert total is not None
            return self.scaled(total, shape.dims)
        kernel = self._of_kernels(
            "sum", maps, shape, lambda *kernels: arithmetic.add_kernels(kernels, given)
        )
        return Map(shape, kernel)

    def stack_maps(self, maps: Sequence[Map]) -> Map:
        """Maps stacked on output channels."""
        if len(maps) == 1:
            return maps[0]
        given = tuple(one.shape for one in maps)
        shape = shapes.stack_shape(given)
        views = [one.chosen for one in maps if one.chosen is not None]
        if len(views) == len(maps) and len({one.shape.axes for one in maps}) == 1:
            chosen = [channel for view in views for channel in view]
            return self.view(chosen, shape.in_features, shape.axes)
        kernel = self._of_kernels(
            "stack", maps, shape, lambda *kernels: arithmetic.stack_kernels(kernels, given)
        )
        return Map(shape, kernel)

    def mirrored(self, one: Map, flipped: Sequence[int]) -> Map:
        """The map between flips along some spatial axes, along which its strides are 1."""
        if one.is_pointwise or not flipped:
            return one
        axes = tuple(
            dataclasses.replace(axis, low=axis.high, high=axis.low) if place in flipped else axis
            for place, axis in enumerate(one.shape.axes)
        )
        shape = dataclasses.replace(one.shape, axes=axes)
        if one.is_window:
            return self.window(shape.features, axes)
        kernel = self.weights.node(
            *("mirrored", [one.kernel], lambda value: jnp.flip(value, tuple(flipped))),
            static=tuple(flipped),
            shape=shape.kernel_shape,
            dtype=one.kernel.dtype,
        )
        return Map(shape, kernel)

    def flattened(self, one: Map, dims: int) -> Map:
        """A map of one tap on images of another number of spatial axes."""
        if one.shape.dims == dims:
            return one
        if one.scale is not None:
            return self.scaled(one.scale, dims)
        if one.chosen is not None:
            return self.select(one.chosen, one.shape.in_features, dims)
        shape = dataclasses.replace(one.shape, axes=(Axis(1),) * dims)
        return Map(shape, self._reshaped(one.kernel, shape.kernel_shape))

    def through(self, bias: Weight, second: Map) -> Weight:
        """What a constant input of `bias` becomes after a map."""
        if second.scale is not None:
            return self.arithmetic("mul", bias, second.scale)
        if second.chosen is not None:
            return self.picked(bias, second.chosen)
        return self.weights.node(
            *("through", [bias, second.kernel]),
            lambda value, kernel: arithmetic.bias_through(value, kernel, second.shape),
            static=(second.shape.dims, second.shape.groups),
            shape=(second.shape.features,),
            dtype=bias.dtype,
        )

    def image_through(self, image: Weight, second: Map, sizes: tuple[int, ...]) -> Weight:
        """What an image of weights (spatial..., channels) becomes after a map."""
        shape = second.shape

        def run(value: Any, kernel: Any) -> Any:
            dtype = common_dtype(value.dtype, kernel.dtype)
            found = arithmetic.convolved(value.astype(dtype)[None], kernel.astype(dtype), shape)
            return found[0]

        outputs = (*shape.output_size(sizes), shape.features)
        return self.weights.node(
            *("image", [image, second.kernel], run),
            static=(shape, sizes),
            shape=outputs,
            dtype=image.dtype,
        )

    def _of_kernels(self, name: str, maps: Sequence[Map], shape: Shape, run: Any) -> Weight:
        kernels = [one.kernel for one in maps]
        static = tuple(_numbers(one.shape) for one in maps)
        return self.weights.node(
            *(name, kernels, run), static=static, shape=shape.kernel_shape, dtype=kernels[0].dtype
        )

    def _reshaped(self, weight: Weight, shape: tuple[int, ...]) -> Weight:
        return self.weights.node(
            *("as kernel", [weight], lambda value: jnp.reshape(value, shape)),
            static=shape,
            shape=shape,
            dtype=weight.dtype,
        )


def _numbers(shape: Shape) -> tuple[Any, ...]:
    """What decides the numbers of a kernel: all of its geometry but the high padding."""
    axes = [(a.taps, a.stride, a.low, a.dilation, a.input_dilation) for a in shape.axes]
    return (*axes, shape.in_features, shape.features, shape.groups)
