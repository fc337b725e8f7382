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


def _axes_along(operation: Operation) -> list[ArrayAxis]:
    """The axes of the data along which numbers are padded, cut or skipped."""
    data, params = operation.data[0], operation.params
    if operation.name == "pad":
        touched = [axis for axis, entry in enumerate(params["padding_config"]) if any(entry)]
    elif operation.name == "split":
        touched = [params["axis"]]
    else:
        strides = params.get("strides") or (1,) * len(data.shape)
        pairs = zip(data.shape, operation.result.shape, strides, strict=True)
        touched = [axis for axis, (one, two, step) in enumerate(pairs) if one != two or step != 1]
    return [ArrayAxis(data, axis) for axis in touched]


def _relate_copy(operation: Operation, roles: Roles) -> Relation | str | None:
    """Relation of a pad or slice: touched axes are channels or space."""
    if len(operation.data) != 1 or not isinstance(operation.operands[0], Value):
        return "weights are padded or sliced by data"
    data = operation.data[0]
    if not is_float(data.dtype):
        return NOT_REAL
    relation = Relation()
    touched = {axis.place for axis in _axes_along(operation)}
    for result in operation.results:
        for one, two in same_axes(data, result):
            known = roles.role(one) or roles.role(two)
            if one.place in touched and known is None:
                return None
            if one.place in touched and known == BATCH:
                return "it takes apart the batch"
            if one.place in touched and known == CHANNEL:
                relation.roles += [(one, CHANNEL), (two, CHANNEL)]
            else:
                relation.same.append((one, two))
    return relation


def _relate_pad(operation: Operation, roles: Roles) -> Relation | str | None:
    config = operation.params["padding_config"]
    if not all(isinstance(number, int) for entry in config for number in entry):
        return "its padding depends on a symbolic size"
    return _relate_copy(operation, roles)


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
    low, high, interior = config[layout.channel]
    same = (low, high, interior) == (0, 0, 0)
    window = affine.window(features, axes)
    state = affine.follow(state, window, data, operation.result if same else None)
    if not same:
        if interior or low < 0 or high < 0:
            raise Apart("channels are spread")
        chosen = [-1] * low + list(range(features)) + [-1] * high
        middle = affine.settled(state)
        select = affine.select(chosen, features, layout.dims)
        state = affine.settled(affine.follow(middle, select, operation.result))
    return affine.shift(state, filling, operation.result) if filled else state


def _relate_slice(operation: Operation, roles: Roles) -> Relation | str | None:
    data, params = operation.data[0], operation.params
    touched = [axis.place for axis in _axes_along(operation)]
    bounds = [(params["start_indices"][axis], params["limit_indices"][axis]) for axis in touched]
    sizes = [data.shape[axis] for axis in touched]
    if not all(isinstance(one, int) for one in [*sizes, *(end for pair in bounds for end in pair)]):
        return "its bounds depend on a symbolic size"
    return _relate_copy(operation, roles)


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
    channel, count = layout.channel, result.shape[layout.channel]
    chosen = [starts[channel] + place * strides[channel] for place in range(count)]
    all_channels = chosen == list(range(features))
    window = affine.window(features, axes)
    state = affine.follow(state_of(operand), window, data, result if all_channels else None)
    if all_channels:
        return state
    select = affine.select(chosen, features, layout.dims)
    return affine.follow(state, select, result, result)


def _split(operation: Operation, operands: Sequence[Operand], affine: Affine) -> list[State]:
    (data,) = operation.data
    axis, ones = operation.params["axis"], (1,) * len(data.shape)
    states, start = [], 0
    for result in operation.results:
        starts = [start if place == axis else 0 for place in range(len(data.shape))]
        states.append(_cut_out(operands[0], data, result, starts, ones, affine))
        start += int(result.shape[axis])
    return states


def _relate_dynamic_slice(operation: Operation, roles: Roles) -> Relation | str | None:
    starts = [constant_value(one) for one in operation.weights]
    if len(operation.data) != 1 or any(start is None for start in starts):
        return "its place depends on data or variables"
    return _relate_copy(operation, roles)


def _dynamic_slice(operation: Operation, operands: Sequence[Operand], affine: Affine) -> State:
    (data,), result = operation.data, operation.result
    starts = []
    for axis, weight in enumerate(operation.weights):
        found, free = constant_value(weight), data.shape[axis] - result.shape[axis]
        assert found is not None
        starts.append(min(max(int(found), 0), free) if isinstance(free, int) else 0)
    return _cut_out(operands[0], data, result, starts, (1,) * len(starts), affine)


def _relate_stack(operation: Operation, roles: Roles) -> Relation | str | None:
    result, along = operation.result, operation.params["dimension"]
    if not is_float(result.dtype):
        return NOT_REAL
    axes = [ArrayAxis(value, along) for value in (result, *operation.data)]
    found = {roles.role(axis) for axis in axes} - {None}
    if found & {SPACE, BATCH}:
        return "pixels or examples are stacked"
    if not found:
        return None
    relation = Relation(roles=[(axis, CHANNEL) for axis in axes])
    for value in operation.data:
        relation.same += [pair for pair in same_axes(value, result) if pair[0].place != along]
    return relation


def _stacked_axis(operation: Operation) -> list[ArrayAxis]:
    return [ArrayAxis(operation.result, operation.params["dimension"])]


def _stack(operation: Operation, operands: Sequence[Operand], affine: Affine) -> State:
    layout = affine.layout(operation.result)
    states: list[State] = []
    counts = [int((one.shape or ())[layout.channel]) for one in operation.operands]
    for operand, count in zip(operands, counts, strict=True):
        if isinstance(operand, Weight):
            bias = vector_of(affine, operand, count, layout)
            operand = Form((), bias, layout.dims)
        states.append(operand)
    return affine.stack(states, counts, operation.result)


_ALONG = (_axes_along, SPACE)

RULES = {
    "pad": Rule(_relate_pad, _pad, 2, assumed=_ALONG),
    "slice": Rule(_relate_slice, _slice, 2, assumed=_ALONG),
    "split": Rule(_relate_copy, _split, 2, assumed=_ALONG),
    "dynamic_slice": Rule(_relate_dynamic_slice, _dynamic_slice, 2, assumed=_ALONG),
    "concatenate": Rule(_relate_stack, _stack, 2, assumed=(_stacked_axis, CHANNEL)),
}
