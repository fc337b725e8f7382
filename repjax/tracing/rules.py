"""Rules: which operations are linear, and what they make of the forms of their operands.

A rule is two short functions per primitive. `relate` says which axes correspond and what
they mean, or returns None if the operation is not of the linear kind at all; `form` gives
the form of the result or raises `Apart` with the reason. What has no rule stays as it is.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from repjax.tracing.axes import Axes, Axis, Layout, Relation
from repjax.tracing.expressions import Node, is_float
from repjax.tracing.forms import Apart, Form, Forms
from repjax.tracing.graph import Operation, Value


@dataclasses.dataclass(frozen=True)
class Context:
    """What a rule may ask: layouts, the forms of operands, and how to build maps."""

    maps: Forms
    axes: Axes
    layout: Callable[[Value], Layout]
    form: Callable[[Value], Form]
    note: Callable[[Operation, list[str]], None]

    def merge(self, operation: Operation, forms: list[Form]) -> Form:
        """The sum of forms; what stays apart in it is noted with the reasons."""
        form, reasons = self.maps.merge(forms)
        if reasons:
            self.note(operation, reasons)
        return form

    def sizes(self, value: Value) -> tuple[int, ...]:
        """Spatial size of a value."""
        return self.layout(value).sizes(value)

    def features(self, value: Value) -> int:
        """Number of channels of a value."""
        return int(value.shape[self.layout(value).channel])

    def vector(self, weight: Node, like: Value) -> Node:
        """A weight, broadcast against `like`, as one number per channel.

        Raises:
            Apart: it varies over positions or within the batch.
        """
        channel, features = self.layout(like).channel, self.features(like)
        if varying(weight) - {channel}:
            raise Apart("a weight that varies over positions")
        node = self.maps.wide(weight)
        places = list(range(len(weight.shape or ())))
        while node.name == "broadcast_in_dim":
            dimensions = node.equation.params["broadcast_dimensions"]
            places = [places[dimension] for dimension in dimensions]
            node = self.maps.wide(node.operands[0])
        index = tuple(slice(None) if place == channel else 0 for place in places)

        def run(value: object) -> jax.Array:
            return jnp.broadcast_to(jnp.asarray(value)[index].reshape(-1), (features,))

        return self.maps.expressions.node(
            *("vector", [node], run),
            static=(index, features),
            shape=(features,),
            dtype=node.dtype,
            value=index,
        )


Relate = Callable[[Operation, Axes], Relation | None]
MakeForm = Callable[[Operation, Context], Form]


@dataclasses.dataclass(frozen=True)
class Rule:
    """The two functions of a primitive, and when its axes are read (small numbers first)."""

    relate: Relate
    form: MakeForm
    rank: int


RULES: dict[str, Rule] = {}


def rule(*names: str, relate: Relate, rank: int) -> Callable[[MakeForm], MakeForm]:
    """Register the form of some primitives."""

    def register(form: MakeForm) -> MakeForm:
        for name in names:
            RULES[name] = Rule(relate, form, rank)
        return form

    return register


@functools.lru_cache(maxsize=4096)
def varying(weight: Node) -> frozenset[int]:
    """The axes along which a weight may take different values."""
    shape = weight.shape or ()
    wide = frozenset(axis for axis, size in enumerate(shape) if size != 1)
    if weight.name == "constant" and is_float(weight.dtype) and 0 not in shape:
        array = np.asarray(weight.value)
        return frozenset(axis for axis in wide if np.any(array != array.take([0], axis)))
    if weight.name == "broadcast_in_dim":
        places = weight.equation.params["broadcast_dimensions"]
        return wide & {places[axis] for axis in varying(weight.operands[0])}
    same = [operand for operand in weight.operands if operand.shape is not None]
    if weight.name in _ELEMENTWISE and all(len(one.shape or ()) == len(shape) for one in same):
        return wide & frozenset().union(*(varying(operand) for operand in same))
    return wide


_ELEMENTWISE = frozenset(
    {"add", "sub", "mul", "div", "neg", "sqrt", "rsqrt", "square", "convert_element_type"}
)


def same_axes(one: Value, two: Value) -> list[tuple[Axis, Axis]]:
    """Every axis of one value corresponds to the same axis of the other."""
    return [(Axis(one, index), Axis(two, index)) for index in range(len(one.shape))]
