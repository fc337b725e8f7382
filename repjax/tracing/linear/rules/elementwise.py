"""Rules of elementwise operations: sums, differences, scales, shifts, masks, casts."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from repjax.tracing.linear.affine import Affine
from repjax.tracing.linear.forms import Apart, State
from repjax.tracing.linear.per_channel import varying, vector_of
from repjax.tracing.linear.roles import CHANNEL, SPACE, ArrayAxis, Relation, Roles
from repjax.tracing.linear.rules.rule import (
    NOT_REAL,
    Operand,
    Rule,
    same_axes,
    state_of,
)
from repjax.tracing.program.program import Operation, Value
from repjax.tracing.program.weights import Weight, constant_value, is_float


def _relate(operation: Operation, roles: Roles) -> Relation | str:
    result = operation.result
    if any(value.shape != result.shape for value in operation.data) or not result.shape:
        return "data of different shapes"
    if not all(is_float(value.dtype) for value in [*operation.data, result]):
        return NOT_REAL
    relation = Relation()
    for value in operation.data:
        relation.same += same_axes(value, result)
    return relation


def hints(operation: Operation, roles: Roles) -> list[Relation]:
    """What weights tell of axes: along one axis they vary over the channels.

    Where the channels are known, other axes along which a weight varies are space.
    """
    if operation.name not in {"add", "sub", "mul", "div", "select_n"}:
        return []
    found = []
    for weight in operation.weights:
        if len(weight.shape or ()) != len(operation.result.shape):
            continue
        axes = [ArrayAxis(operation.result, axis) for axis in sorted(varying(weight))]
        if len(axes) == 1:
            found.append(Relation(roles=[(axes[0], CHANNEL)]))
        elif CHANNEL in [roles.role(axis) for axis in axes]:
            unknown = [axis for axis in axes if roles.role(axis) is None]
            found.append(Relation(roles=[(axis, SPACE) for axis in unknown]))
    return found


def _sum(operation: Operation, operands: Sequence[Operand], affine: Affine) -> State:
    one, two = operands
    minus, value = operation.name == "sub", operation.result
    if isinstance(two, Weight):
        return affine.shift(state_of(one), two, value, negative=minus)
    if minus:
        two = affine.negative(two, value)
    if isinstance(one, Weight):
        return affine.shift(two, one, value)
    return affine.add([one, two])


def _negative(operation: Operation, operands: Sequence[Operand], affine: Affine) -> State:
    return affine.negative(state_of(operands[0]), operation.result)


def _relate_scale(operation: Operation, roles: Roles) -> Relation | str:
    if len(operation.data) == 2:
        return f"{'product' if operation.name == 'mul' else 'quotient'} of data"
    if operation.name == "div" and isinstance(operation.operands[1], Value):
        return "division by data"
    return _relate(operation, roles)


def _scale(operation: Operation, operands: Sequence[Operand], affine: Affine) -> State:
    one, two = operands
    weight, state = (one, two) if isinstance(one, Weight) else (two, one)
    assert isinstance(weight, Weight)
    divide = operation.name == "div"
    return affine.scale(state_of(state), weight, operation.result, divide=divide)


def _same(operation: Operation, operands: Sequence[Operand], affine: Affine) -> State:
    return state_of(operands[0])


def _relate_mask(operation: Operation, roles: Roles) -> Relation | str:
    mask = operation.operands[0]
    known = isinstance(mask, Weight) and constant_value(mask) is not None
    if not known or len(operation.operands) != 3 or mask.dtype != np.bool_:
        return "a choice that depends on data or variables"
    if not all(is_float(one.dtype) for one in [*operation.operands[1:], operation.result]):
        return NOT_REAL
    return _relate(operation, roles)


def _mask(operation: Operation, operands: Sequence[Operand], affine: Affine) -> State:
    mask, *cases = operands
    assert isinstance(mask, Weight)
    value, layout = operation.result, affine.layout(operation.result)
    if varying(mask) - {layout.channel}:
        raise Apart("a mask that varies over positions")
    array = constant_value(mask)
    assert array is not None
    index = tuple(slice(None) if axis == layout.channel else 0 for axis in range(array.ndim))
    chosen = np.broadcast_to(array[index].reshape(-1), (affine.features(value),))
    return masked(affine, cases, [~chosen, chosen], value)


def masked(
    affine: Affine, cases: Sequence[Operand], masks: Sequence[np.ndarray], value: Value
) -> State:
    """The sum of cases, each on its own channels and zero on the others."""
    states: list[State] = []
    biases: list[Weight] = []
    layout, features = affine.layout(value), affine.features(value)
    for case, mask in zip(cases, masks, strict=True):
        if isinstance(case, Weight):
            vector = vector_of(affine, case, features, layout)
            biases.append(_masked_vector(affine, vector, mask))
            continue
        shape = [features if axis == layout.channel else 1 for axis in range(len(value.shape))]
        ones = affine.weights.constant(mask.astype(np.float32).reshape(shape))
        states.append(affine.scale(case, ones, value))
    total = affine.add(states)
    for bias in biases:
        total = affine.shift_channels(total, bias, value)
    return total


def _masked_vector(affine: Affine, vector: Weight, mask: np.ndarray) -> Weight:
    return affine.weights.node(
        *("masked", [vector], lambda found: jnp.where(mask, found, jnp.zeros_like(found))),
        static=mask.tobytes(),
        shape=vector.shape,
        dtype=vector.dtype,
    )


RULES = {
    "add": Rule(_relate, _sum, 1),
    "add_any": Rule(_relate, _sum, 1),
    "sub": Rule(_relate, _sum, 1),
    "neg": Rule(_relate, _negative, 1),
    "mul": Rule(_relate_scale, _scale, 1),
    "div": Rule(_relate_scale, _scale, 1),
    "select_n": Rule(_relate_mask, _mask, 1),
    "convert_element_type": Rule(_relate, _same, 1),
    "copy": Rule(_relate, _same, 1),
    "copy_p": Rule(_relate, _same, 1),
}
