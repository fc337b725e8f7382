"""The arithmetic of maps: composed, added, stacked, mirrored, and what biases become after them.

Built with `repjax.algebra`: the geometry now, the numbers when they are asked for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from repjax.algebra import arithmetic, shapes
from repjax.algebra.dtypes import common_dtype
from repjax.algebra.geometry import Axis
from repjax.algebra.shapes import Shape
from repjax.tracing.linear.maps import Map, Maps
from repjax.tracing.program.weights import Weight


@dataclasses.dataclass(frozen=True)
class MapArithmetic(Maps):
    """Verbs of maps. Legality is the caller's business."""

    def compose(self, first: Map, second: Map) -> Map:
        """`second` after `first`, known to be legal."""
        if first.is_identity:
            return second
        if second.is_identity:
            return first
        shape = shapes.chain_shape(first.shape, second.shape)
        dims = max(_stored_dims(first), _stored_dims(second))
        if first.is_pointwise and second.is_pointwise and dims > shape.dims:
            wide = self.compose(self.flattened(first, dims), self.flattened(second, dims))
            return self.flattened(wide, shape.dims)
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
        if (first.is_window or first.is_average) and second.is_pointwise and not first.chosen:
            return first, second
        if second.is_window and first.is_pointwise and not second.chosen:
            return self.window(first.shape.in_features, second.shape.axes), first
        return None

    def with_average(self, one: Map) -> Map | None:
        """A map that adds up over a window, with the average in its place; None for others."""
        if one.is_window:
            return self.average(one)
        if one.stages is None or not one.stages[0].is_window:
            return None
        window, rest = one.stages
        return self.compose(self.average(window), rest)

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
        if one.is_window or one.is_average:
            window = self.window(shape.features, axes)
            return window if one.is_window else self.average(window)
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
        return Map(dataclasses.replace(one.shape, axes=(Axis(1),) * dims), one.kernel)

    def through(self, bias: Weight, second: Map) -> Weight:
        """What a constant input of `bias` becomes after a map."""
        if second.scale is not None:
            return self.arithmetic("mul", bias, second.scale)
        if second.chosen is not None:
            return self.picked(bias, second.chosen)
        if second.is_average:
            return bias
        if second.is_window:
            return self.arithmetic("mul", bias, self.full(second.taps, second.shape.features))
        shape = self.flattened(second, 0).shape if second.is_pointwise else second.shape

        def run(value: Any, kernel: Any) -> Any:
            return arithmetic.bias_through(value, kernel.reshape(shape.kernel_shape), shape)

        return self.weights.node(
            *("through", [bias, second.kernel], run),
            static=(shape.dims, shape.groups),
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
        static = tuple(_geometry(one.shape) for one in maps)
        given = [one.shape.kernel_shape for one in maps]

        def reshaped(*values: Any) -> Any:
            return run(*(value.reshape(one) for value, one in zip(values, given, strict=True)))

        return self.weights.node(
            *(name, kernels, reshaped),
            static=static,
            shape=shape.kernel_shape,
            dtype=kernels[0].dtype,
        )


def _stored_dims(one: Map) -> int:
    """Spatial axes of its kernel as it is stored: a mean over space leaves the map fewer."""
    free = one.scale is not None or one.chosen is not None
    return 0 if free else len(one.kernel.shape or ()) - 2


def _geometry(shape: Shape) -> tuple[Any, ...]:
    """What decides the numbers of a kernel: all of its geometry but the high padding."""
    axes = [(a.taps, a.stride, a.low, a.dilation, a.input_dilation) for a in shape.axes]
    return (*axes, shape.in_features, shape.features, shape.groups)
