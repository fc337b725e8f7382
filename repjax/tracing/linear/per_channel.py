"""Weights as they meet data: one number per channel, an image, or spread over more.

A weight is broadcast against a value; what counts is along which axes it really varies.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from repjax.tracing.linear.forms import Apart
from repjax.tracing.linear.roles import Layout
from repjax.tracing.linear.vectors import Vectors
from repjax.tracing.program.program import Operation, Value
from repjax.tracing.program.weights import Weight, constant_value

_ELEMENTWISE = frozenset(
    {"add", "sub", "mul", "div", "neg", "sqrt", "rsqrt", "square", "convert_element_type"}
)


@functools.lru_cache(maxsize=4096)
def varying(weight: Weight) -> frozenset[int]:
    """The axes along which a weight may take different values."""
    shape = weight.shape or ()
    wide = frozenset(axis for axis, size in enumerate(shape) if size != 1)
    constant = constant_value(weight)
    if constant is not None and 0 not in shape:
        return frozenset(axis for axis in wide if _differs(constant, axis))
    if weight.name == "broadcast_in_dim":
        places = weight.equation.params["broadcast_dimensions"]
        return wide & {places[axis] for axis in varying(weight.operands[0])}
    same = [operand for operand in weight.operands if operand.shape]
    if weight.name in _ELEMENTWISE and all(len(one.shape or ()) == len(shape) for one in same):
        return wide & frozenset().union(*(varying(operand) for operand in same))
    return wide


def _differs(array: np.ndarray[Any, Any], axis: int) -> bool:
    return bool(np.any(array != array.take([0], axis)))


def vector_of(vectors: Vectors, weight: Weight, features: int, layout: Layout) -> Weight:
    """A weight, broadcast against data of this layout, as one number per channel.

    Raises:
        Apart: it varies over positions or within the batch.
    """
    channel = layout.channel
    if varying(weight) - {channel}:
        raise Apart("a weight that varies over positions")
    node = vectors.wide(weight)
    places = list(range(len(weight.shape or ())))
    while node.name == "broadcast_in_dim":
        dimensions = node.equation.params["broadcast_dimensions"]
        places = [places[dimension] for dimension in dimensions]
        node = vectors.wide(node.operands[0])
    index = tuple(slice(None) if place == channel else 0 for place in places)

    def run(found: object) -> Any:
        return jnp.broadcast_to(jnp.asarray(found)[index].reshape(-1), (features,))

    return vectors.weights.node(
        *("vector", [node], run),
        static=(tuple(place == channel for place in places), features),
        shape=(features,),
        dtype=node.dtype,
        value=(index, features),
    )


def static_sizes(sizes: Sequence[object]) -> tuple[int, ...]:
    """Sizes that are numbers.

    Raises:
        Apart: one is symbolic.
    """
    numbers = tuple(size for size in sizes if isinstance(size, int))
    if len(numbers) != len(sizes):
        raise Apart("weights that vary over positions of a symbolic size")
    return numbers


def image_of(vectors: Vectors, weight: Weight, value: Value, layout: Layout) -> Weight:
    """A weight, broadcast against `value`, as an image (spatial..., channels).

    Raises:
        Apart: it varies within the batch, or the image has a symbolic size.
    """
    if varying(weight) & set(layout.batch) or not weight.shape:
        raise Apart("a weight that varies within the batch")
    static_sizes(layout.sizes(value))
    order = (*layout.space, layout.channel)
    shape = tuple(value.shape[axis] for axis in order)
    rank = len(value.shape)
    node = vectors.wide(weight)

    def run(found: Any) -> Any:
        index = tuple(slice(None) if axis in order else 0 for axis in range(rank))
        kept = [axis for axis in range(rank) if axis in order]
        part = jnp.asarray(found)[index]
        return jnp.broadcast_to(jnp.transpose(part, [kept.index(axis) for axis in order]), shape)

    return vectors.weights.node(
        *("positions", [node], run), static=(order, shape), shape=shape, dtype=node.dtype
    )


def pulled_back(vectors: Vectors, weight: Weight, operations: Sequence[Operation]) -> Weight:
    """A weight that meets the result of rearrangements, as it meets their input."""
    for operation in reversed(operations):
        if not weight.shape:
            return weight
        before, after = operation.data[0].shape, operation.result.shape
        if operation.name == "transpose":
            weight = _moved(vectors, weight, operation.params["permutation"])
        elif operation.name == "rev":
            weight = _flipped(vectors, weight, operation.params["dimensions"])
        else:
            weight = _reshaped(vectors, weight, before, after)
    return weight


def _moved(vectors: Vectors, weight: Weight, permutation: Sequence[int]) -> Weight:
    order = tuple(int(place) for place in np.argsort(permutation))
    shape = weight.shape or ()
    return vectors.weights.node(
        *("transposed", [weight], lambda found: jnp.transpose(found, order)),
        static=order,
        shape=tuple(shape[axis] for axis in order),
        dtype=weight.dtype,
    )


def _flipped(vectors: Vectors, weight: Weight, dimensions: Sequence[int]) -> Weight:
    axes = tuple(sorted(set(dimensions) & varying(weight)))
    if not axes:
        return weight
    return vectors.weights.node(
        *("flipped", [weight], lambda found: jnp.flip(found, axes)),
        static=axes,
        shape=weight.shape,
        dtype=weight.dtype,
    )


def _reshaped(
    vectors: Vectors, weight: Weight, before: tuple[Any, ...], after: tuple[Any, ...]
) -> Weight:
    """Broadcast only what a reshape mixes: axes that keep to themselves stay of size 1."""
    pairs = matching_axes(before, after)
    if pairs is None:
        raise Apart("a reshape of symbolic sizes")
    along = varying(weight)
    wide: list[Any] = [1] * len(after)
    shape: list[Any] = [1] * len(before)
    for ones, twos in pairs:
        if along & set(twos):
            for axis in twos:
                wide[axis] = after[axis]
            for axis in ones:
                shape[axis] = before[axis]
    index = tuple(slice(0, 1) if size == 1 else slice(None) for size in wide)

    def run(found: Any) -> Any:
        return jnp.broadcast_to(jnp.asarray(found)[index], wide).reshape(shape)

    return vectors.weights.node(
        *("reshaped", [weight], run),
        static=(tuple(wide), tuple(shape)),
        shape=tuple(shape),
        dtype=weight.dtype,
    )


def matching_axes(
    one: tuple[Any, ...], two: tuple[Any, ...]
) -> list[tuple[list[int], list[int]]] | None:
    """Runs of axes of equal product, in order; None where sizes cannot be compared."""
    pairs: list[tuple[list[int], list[int]]] = []
    i = j = 0
    try:
        while i < len(one) or j < len(two):
            ones, twos = [i] if i < len(one) else [], [j] if j < len(two) else []
            left = one[i] if ones else 1
            right = two[j] if twos else 1
            i, j = i + len(ones), j + len(twos)
            while left != right:
                if (left < right and i < len(one)) or j >= len(two):
                    left, ones, i = left * one[i], [*ones, i], i + 1
                else:
                    right, twos, j = right * two[j], [*twos, j], j + 1
            pairs.append((ones, twos))
    except (IndexError, TypeError, ValueError):
        return None
    return pairs


def is_one(size: Any) -> bool:
    """Whether a size is the number 1."""
    return isinstance(size, int) and size == 1
