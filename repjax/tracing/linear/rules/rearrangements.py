"""Rules of reshapes, transposes and flips.

Where every axis keeps its role nothing happens to the form. Otherwise the elements change
places: the form waits, and what is done to single elements afterwards is done before.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from repjax.tracing.linear.affine import Affine
from repjax.tracing.linear.forms import Apart, Form, Rearranged, Stacked, State, Summed, Viewed
from repjax.tracing.linear.per_channel import is_one, matching_axes, pulled_back
from repjax.tracing.linear.roles import BATCH, CHANNEL, ArrayAxis, Relation, Roles
from repjax.tracing.linear.rules.rule import NOT_REAL, Operand, Rule, same_axes, state_of
from repjax.tracing.program.program import Operation, Value
from repjax.tracing.program.weights import constant_value, is_float

Correspondence = dict[int, int]


def _corresponding(operation: Operation) -> Correspondence | None:
    """Axes of the operand that are axes of the result; None if there is no telling."""
    (data,), params = operation.data, operation.params
    if operation.name == "transpose":
        return {one: two for two, one in enumerate(params["permutation"])}
    if operation.name == "squeeze":
        gone = params["dimensions"]
        kept = [axis for axis in range(len(data.shape)) if axis not in gone]
        return {one: two for two, one in enumerate(kept)}
    if operation.name == "broadcast_in_dim":
        return dict(enumerate(params["broadcast_dimensions"]))
    pairs = matching_axes(data.shape, operation.result.shape)
    if pairs is None or params.get("dimensions") is not None:
        return None
    found: Correspondence = {}
    for ones, twos in pairs:
        wide_ones = [axis for axis in ones if not is_one(data.shape[axis])]
        wide_twos = [axis for axis in twos if not is_one(operation.result.shape[axis])]
        if len(wide_ones) == len(wide_twos) == 1:
            found[wide_ones[0]] = wide_twos[0]
        elif len(ones) == len(twos) == 1:
            found[ones[0]] = twos[0]
    return found


def _relate(operation: Operation, roles: Roles) -> Relation | str | None:
    (data,), result = operation.data, operation.result
    if not is_float(data.dtype):
        return NOT_REAL
    found = _corresponding(operation)
    if found is None:
        return "a reshape of symbolic sizes"
    if operation.name == "broadcast_in_dim":
        added = [a for a in range(len(result.shape)) if a not in found.values()]
        kept = all(data.shape[one] == result.shape[two] for one, two in found.items())
        if not kept or any(not is_one(result.shape[axis]) for axis in added):
            return "data is repeated"
    relation = Relation(
        [(ArrayAxis(data, one), ArrayAxis(result, two)) for one, two in found.items()]
    )
    for axes in _mixed(operation):
        sides = [[axis for axis in axes if axis.value is value] for value in (data, result)]
        known = [[roles.role(axis) for axis in side] for side in sides]
        if not any(any(side) for side in known):
            return None
        channels = [CHANNEL in side for side in known]
        if channels[0] == channels[1]:
            relation.roles += [(axis, BATCH) for axis in axes if not any(channels)]
        elif rest := sides[channels.index(False)]:
            relation.roles.append((rest[-1], CHANNEL))
    return relation


def _mixed(operation: Operation) -> list[list[ArrayAxis]]:
    """Groups of axes, of operand and result, that correspond as a whole and not one by one."""
    (data,), result = operation.data, operation.result
    found = _corresponding(operation) or {}
    pairs = [(list(range(len(data.shape))), list(range(len(result.shape))))]
    if operation.name == "reshape":
        pairs = matching_axes(data.shape, result.shape) or pairs
    groups = []
    for ones, twos in pairs:
        axes = [ArrayAxis(data, axis) for axis in ones if axis not in found]
        axes += [ArrayAxis(result, axis) for axis in twos if axis not in found.values()]
        groups.append([axis for axis in axes if not is_one(axis.value.shape[axis.place])])
    return [axes for axes in groups if axes]


def _all_mixed(operation: Operation) -> list[ArrayAxis]:
    return [axis for axes in _mixed(operation) for axis in axes]


def _relate_flip(operation: Operation, roles: Roles) -> Relation | str:
    (data,) = operation.data
    if not is_float(data.dtype):
        return NOT_REAL
    return Relation(same=same_axes(data, operation.result))


def _rearranged(operation: Operation, operands: Sequence[Operand], affine: Affine) -> State:
    state = state_of(operands[0])
    if not isinstance(state, Rearranged) and _keeps_roles(operation, state, affine):
        return state
    return _waiting(operation, state, affine)


def _waiting(operation: Operation, state: State, affine: Affine) -> State:
    """The form with one more rearrangement that waits, or the choice of channels they are."""
    if isinstance(state, Rearranged):
        state = Rearranged(state.form, state.value, (*state.operations, operation))
        chosen = _channels_moved(affine, state, operation.result)
        if chosen is None:
            return state
        features, dims = len(chosen), affine.layout(state.value).dims
        select = affine.select(chosen, features, dims)
        return affine.follow(state.form, select, state.value)
    if isinstance(state, Summed):
        raise Apart("a sum over positions changes its axes")
    form = state if isinstance(state, Stacked | Viewed) else affine.settled(state)
    return Rearranged(form, operation.data[0], (operation,))


def _channels_moved(affine: Affine, state: Rearranged, result: Value) -> list[int] | None:
    """The channels that rearrangements put in the place of each, if they move nothing else."""
    shape = state.value.shape
    same = affine.layout(state.value) == affine.layout(result)
    if not same or shape != result.shape or not all(isinstance(size, int) for size in shape[1:]):
        return None
    found = None
    for axis, size in enumerate(shape):
        if not isinstance(size, int):
            if axis in _touched(state):
                return None
            continue
        wide = [1] * len(shape)
        wide[axis] = size
        numbers = affine.weights.constant(np.arange(size, dtype=np.int32).reshape(wide))
        try:
            here = constant_value(pulled_back(affine, numbers, state.operations))
        except Apart:
            return None
        if here is None or here.size != size or here.shape[axis] != size:
            return None
        places = here.ravel().tolist()
        if axis == affine.layout(result).channel:
            found = [places.index(channel) for channel in range(size)]
        elif places != list(range(size)):
            return None
    return found


def _touched(state: Rearranged) -> set[int]:
    """The axes of the first value that do not come out as axes of the same place."""
    places = {axis: axis for axis in range(len(state.value.shape))}
    for operation in state.operations:
        if operation.name == "rev":
            gone = set(operation.params["dimensions"])
            places = {one: two for one, two in places.items() if two not in gone}
            continue
        found = _corresponding(operation) or {}
        places = {one: found[two] for one, two in places.items() if two in found}
    return {axis for axis in range(len(state.value.shape)) if places.get(axis) != axis}


def _keeps_roles(operation: Operation, state: State, affine: Affine) -> bool:
    """Whether every axis of the operand is an axis of the result in the same role."""
    (data,), result = operation.data, operation.result
    found = _corresponding(operation)
    before, after = affine.layout(data), affine.layout(result)
    if found is None or found.get(before.channel) != after.channel:
        return False
    batch = [found[axis] for axis in before.batch if axis in found]
    if batch != sorted(batch) or not set(batch) <= set(after.batch):
        return False
    space = [found.get(axis) for axis in before.space]
    if space == list(after.space):
        return True
    # One pixel has no extent: a mean over all of space has no spatial axes left.
    pixels = [data.shape[axis] for axis in before.space]
    pixels += [result.shape[axis] for axis in after.space]
    no_extent = isinstance(state, Summed) or (isinstance(state, Form) and state.dims == 0)
    return no_extent and all(map(is_one, pixels))


def _flip(operation: Operation, operands: Sequence[Operand], affine: Affine) -> State:
    (data,), state = operation.data, state_of(operands[0])
    channel = affine.layout(data).channel
    if tuple(operation.params["dimensions"]) == (channel,) and not isinstance(state, Rearranged):
        features = affine.features(data)
        select = affine.select(range(features)[::-1], features, affine.layout(data).dims)
        return affine.follow(state, select, data)
    return _waiting(operation, state, affine)


_MIXED = (_all_mixed, BATCH)

RULES = {
    "transpose": Rule(_relate, _rearranged, 1, rearranges=True),
    "reshape": Rule(_relate, _rearranged, 2, rearranges=True, assumed=_MIXED),
    "squeeze": Rule(_relate, _rearranged, 2, rearranges=True),
    "broadcast_in_dim": Rule(_relate, _rearranged, 2),
    "rev": Rule(_relate_flip, _flip, 2, rearranges=True),
}
