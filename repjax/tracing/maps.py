"""Maps: convolutions whose geometry is known and whose numbers are expressions.

Everything is built with the verbs of `repjax.algebra`: the geometry now, the numbers when
they are asked for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from repjax import algebra
from repjax.algebra import arithmetic, shapes
from repjax.algebra.conv import from_shape
from repjax.algebra.dtypes import common_dtype
from repjax.algebra.geometry import Axis
from repjax.algebra.shapes import Shape
from repjax.tracing.expressions import Node
from repjax.tracing.vectors import Vectors


@dataclasses.dataclass(frozen=True)
class Map:
    """A convolution without bias: geometry and the expression of its `Conv`.

    Attributes:
        shape: geometry, channels, groups.
        node: the expression that evaluates to the `Conv`.
        scale: where the map is a scale per channel and nothing else, its vector.
        bare: whether every output is one input, unscaled (identity, pad, crop, stride).
    """

    shape: Shape
    node: Node
    scale: Node | None = None
    bare: bool = False

    @property
    def is_identity(self) -> bool:
        """Whether the map gives back its input."""
        return self.bare and all(axis == Axis(1) for axis in self.shape.axes)


@dataclasses.dataclass(frozen=True)
class Maps(Vectors):
    """Constructors and verbs of maps."""

    # Constructors.

    def identity(self, features: int, dims: int) -> Map:
        """The identity."""
        return self.window(features, [Axis(1)] * dims)

    def select(self, chosen: Sequence[int], features: int, dims: int) -> Map:
        """Some of the channels in some order; -1 stands for a channel of zeros."""
        matrix = np.asarray(chosen) == np.arange(features)[:, None]
        shape = Shape((Axis(1),) * dims, features, len(chosen))
        node = self.expressions.node(
            "select",
            run=lambda: algebra.Conv(jnp.asarray(matrix.reshape(shape.kernel_shape), jnp.float32)),
            static=(dims, tuple(chosen), features),
        )
        return Map(shape, node)

    def window(self, features: int, axes: Sequence[Axis]) -> Map:
        """The sum over a window, channel by channel; with one tap a view of the input."""
        shape = Shape(tuple(axes), features, features, features)

        def run() -> algebra.Conv:
            kernel = jnp.ones(shape.kernel_shape, jnp.float32)
            return from_shape(kernel, None, shape)

        node = self.expressions.node("window", run=run, static=(features, _numbers(axes)))
        return Map(shape, node, bare=all(axis.taps == 1 for axis in axes))

    def scaled(self, vector: Node, dims: int) -> Map:
        """A scale per channel."""
        (features,) = vector.shape or ()
        node = self.expressions.node(
            "scale", [vector], lambda scale: algebra.channel_affine(scale, dims=dims), static=dims
        )
        return Map(Shape((Axis(1),) * dims, features, features, features), node, scale=vector)

    def kernel(self, kernel: Node, order: Sequence[int], shape: Shape) -> Map:
        """A convolution whose kernel is the weight with its axes put in `order`."""
        kernel = self.wide(kernel)
        mark = self.expressions.node(
            "kernel",
            [kernel],
            lambda value: jnp.transpose(value, order),
            static=tuple(order),
            kernel=True,
            dtype=kernel.dtype,
        )
        node = self.expressions.node(
            "conv",
            [mark],
            lambda value: from_shape(value.reshape(shape.kernel_shape), None, shape),
            static=(_numbers(shape.axes), shape.groups, shape.kernel_shape),
        )
        return Map(shape, node)

    # Verbs.

    def compose(self, first: Map, second: Map, sizes: tuple[int, ...]) -> Map:
        """`second` after `first`, known to be legal for an input of these sizes."""
        if first.is_identity:
            return second
        if second.is_identity:
            return first
        shape = shapes.chain_shape(first.shape, second.shape)
        if first.scale is not None and second.scale is not None:
            return self.scaled(self.vector("mul", first.scale, second.scale), shape.dims)
        if first.bare and second.bare:
            return self.window(shape.features, shape.axes)
        node = self.expressions.node(
            "compose",
            [first.node, second.node],
            lambda one, two: algebra.compose(one, two, size=sizes),
        )
        return Map(shape, node)

    def add(self, maps: Sequence[Map], sizes: tuple[int, ...]) -> Map:
        """The sum of maps, known to be legal for an input of these sizes."""
        maps = sorted(maps, key=lambda one: one.node.key)
        node = self.expressions.node(
            "sum", [one.node for one in maps], lambda *convs: algebra.add(*convs, size=sizes)
        )
        shape = shapes.sum_shape(tuple(one.shape for one in maps))
        scale = None
        if all(one.scale is not None or one.is_identity for one in maps):
            vectors = [one.scale or self.full(1.0, shape.features) for one in maps]
            scale = vectors[0]
            for vector in vectors[1:]:
                scale = self.vector("add", scale, vector)
            return self.scaled(scale, shape.dims)
        return Map(shape, node)

    def stack(self, maps: Sequence[Map], sizes: tuple[int, ...]) -> Map:
        """Maps stacked on output channels."""
        node = self.expressions.node(
            "stack",
            [one.node for one in maps],
            lambda *convs: algebra.concatenate(*convs, size=sizes),
        )
        return Map(shapes.stack_shape(tuple(one.shape for one in maps)), node)

    def through(self, bias: Node, second: Map) -> Node:
        """What a constant input of `bias` becomes after a map."""
        if second.bare:
            return bias
        if second.scale is not None:
            return self.vector("mul", bias, second.scale)

        def run(value: Any, conv: algebra.Conv) -> Any:
            dtype = common_dtype(value.dtype, conv.kernel.dtype)
            return arithmetic.bias_through(
                value.astype(dtype), conv.kernel.astype(dtype), conv.shape
            )

        features = (second.shape.features,)
        return self.expressions.node(
            "through", [bias, second.node], run, shape=features, dtype=bias.dtype
        )


def _numbers(axes: Sequence[Axis]) -> tuple[tuple[int, ...], ...]:
    """What decides the numbers of a fused kernel: all but the high padding."""
    return tuple(
        (axis.taps, axis.stride, axis.low, axis.dilation, axis.input_dilation) for axis in axes
    )
