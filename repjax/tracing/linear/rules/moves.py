"""Rules of pads, crops, strides and stacks: operations that copy numbers along known axes."""

from __future__ import annotations

from collections.abc import Sequence

from repjax.algebra import geometry
from repjax.tracing.linear.affine import Affine
from repjax.tracing.linear.forms import Apart, Form, State
from repjax.tracing.linear.per_channel import vector_of
from repjax.tracing.linear.roles import BATCH, CHANNEL, SPACE, ArrayAxis, Relation, Roles
from repjax.tracing.linear.rules.rule import NOT_REAL, Operand, Rule, same_axes, state_of
from repjax.tracing.program.program import Operation, Value
from repjax.tracing.program.weights import Weight, constant_value, is_float
from repjax.tracing.program.zeros import is_zero


def _moved(operation: Operation, roles: Roles, touched: Sequence[int]) -> Relation | str:
    """Relation of a pad or slice: touched axes are channels where known, else space."""
    if len(operation.data) != 1 or not isinstance(operation.operands[0], Value):
        return "weights are padded or sliced by data"
    data = operation.data[0]
    if not is_float(data.dtype):
        return NOT_REAL
    relation = Relation()
    for result in operation.results:
        for one, two in same_axes(data, result):
            known = roles.role(one) or roles.role(two)
            if one.place in touched and known == BATCH:
                return "it takes apart the batch"
            if one.place in touched and known == CHANNEL:
                relation.roles += [(one, CHANNEL), (two, CHANNEL)]
            else:
                relation.same.append((one, two))
                if one.place in touched:
                    relation.roles.append((one, SPACE))
    return relation


def _relate_pad(operation: Operation, roles: Roles) -> Relation | str:
    config = operation.params["padding_config"]
    touched = [axis for axis, entry in enumerate(config) if any(entry)]
    if not all(isinstance(number, int) for entry in config for number in entry):
        return "its padding depends on a symbolic size"
    return _moved(operation, roles, touched)


def _pad(operation: Operation, operands: Sequence[Operand], affine: Affine) -> State:
    state, filling = operands
    (data,) = operation.data
    if not isinstance(filling, Weight):
        raise Apart("padding with data")
    config = operation.params["padding_config"]
    layout, features = affine.layout(data), affine.features(data)
    axes = [
        geometry.Axis(1, 1, config[axis][0], config[axis][1], 1, config[axis][2] + 1)
        for axis in layout.space
    ]
    state = state_of(state)
    filled = not is_zero(filling)
    if filled:
        state = affine.shift(state, filling, data, negative=True)
    state = affine.follow(state, affine.window(features, axes), data)
    low, high, interior = config[layout.channel]
    if (low, high, interior) != (0, 0, 0):
        if interior or low < 0 or high < 0:
            raise Apart("channels are spread")
        chosen = [-1] * low + list(range(features)) + [-1] * high
        middle = affine.settled(state)
        select = affine.select(chosen, features, layout.dims)
        state = affine.settled(affine.follow(middle, select, operation.result))
    return affine.shift(state, filling, operation.result) if filled else state


def _relate_slice(operation: Operation, roles: Roles) -> Relation | str:
    data = operation.data[0]
    strides = operation.params["strides"] or (1,) * len(data.shape)
    touched = [
        axis
        for axis, size in enumerate(data.shape)
        if operation.result.shape[axis] != size or strides[axis] != 1
    ]
    bounds = (*operation.params["start_indices"], *operation.params["limit_indices"])
    if any(not isinstance(data.shape[axis], int) for axis in touched) or not all(
        isinstance(bounds[axis], int) for axis in touched
    ):
        return "its bounds depend on a symbolic size"
    return _moved(operation, roles, touched)


def _slice(operation: Operation, operands: Sequence[Operand], affine: Affine) -> State:
    (data,) = operation.data
    params = operation.params
    strides = params["strides"] or (1,) * len(data.shape)
    return _cut_out(operands[0], data, operation.result, params["start_indices"], strides, affine)


def _cut_out(
    operand: Operand,
    data: Value,
    result: Value,
    starts: Sequence[int],
    strides: Sequence[int],
    affine: Affine,
) -> State:
    """Every so many of the pixels and channels from some place on."""
    layout, features = affine.layout(data), affine.features(data)
    axes = []
    for axis in layout.space:
        start, stride, count = starts[axis], strides[axis], result.shape[axis]
        if not isinstance(count, int):
            axes.append(geometry.Axis(1))
            continue
        reach = (count - 1) * stride + 1 - data.shape[axis]
        axes.append(geometry.Axis(1, stride, -start, reach + start))
    state = affine.follow(state_of(operand), affine.window(features, axes), data)
    channel, count = layout.channel, result.shape[layout.channel]
    chosen = [starts[channel] + place * strides[channel] for place in range(count)]
    if chosen == list(range(features)):
        return state
    select = affine.select(chosen, features, layout.dims)
    return affine.follow(state, select, result)


def _relate_split(operation: Operation, roles: Roles) -> Relation | str:
    return _moved(operation, roles, [operation.params["axis"]])


def _split(operation: Operation, operands: Sequence[Operand], affine: Affine) -> list[State]:
    (data,) = operation.data
    axis, ones = operation.params["axis"], (1,) * len(data.shape)
    states, start = [], 0
    for result in operation.results:
        starts = [start if place == axis else 0 for place in range(len(data.shape))]
        states.append(_cut_out(operands[0], data, result, starts, ones, affine))
        start += int(result.shape[axis])
    return states


def _relate_dynamic_slice(operation: Operation, roles: Roles) -> Relation | str:
    starts = [constant_value(one) for one in operation.weights]
    if len(operation.data) != 1 or any(start is None for start in starts):
        return "its place depends on data or variables"
    pairs = zip(operation.data[0].shape, operation.result.shape, strict=True)
    return _moved(operation, roles, [axis for axis, (a, b) in enumerate(pairs) if a != b])


def _dynamic_slice(operation: Operation, operands: Sequence[Operand], affine: Affine) -> State:
    (data,), result = operation.data, operation.result
    starts = []
    for axis, weight in enumerate(operation.weights):
        found, free = constant_value(weight), data.shape[axis] - result.shape[axis]
        assert found is not None
        starts.append(min(max(int(found), 0), free) if isinstance(free, int) else 0)
    return _cut_out(operands[0], data, result, starts, (1,) * len(starts), affine)


def _relate_stack(operation: Operation, roles: Roles) -> Relation | str:
    result, along = operation.result, operation.params["dimension"]
    if not is_float(result.dtype):
        return NOT_REAL
    if roles.role(ArrayAxis(result, along)) in {SPACE, BATCH}:
        return "pixels or examples are stacked"
    relation = Relation(roles=[(ArrayAxis(result, along), CHANNEL)])
    for value in operation.data:
        relation.same += [pair for pair in same_axes(value, result) if pair[0].place != along]
        relation.roles.append((ArrayAxis(value, along), CHANNEL))
    return relation


def _stack(operation: Operation, operands: Sequence[Operand], affine: Affine) -> State:
    layout = affine.layout(operation.result)
    states: list[State] = []
    counts = [int((one.shape or ())[layout.channel]) for one in operation.operands]
    for operand, count in zip(operands, counts, strict=True):
        if isinstance(operand, Weight):
            bias = vector_of(affine, operand, count, layout)
            operand = Form((), bias, layout.dims)
        states.append(operand)
    return affine.stack(states, counts)


RULES = {
    "pad": Rule(_relate_pad, _pad, 2),
    "slice": Rule(_relate_slice, _slice, 2),
    "split": Rule(_relate_split, _split, 2),
    "dynamic_slice": Rule(_relate_dynamic_slice, _dynamic_slice, 2),
    "concatenate": Rule(_relate_stack, _stack, 3),
}
