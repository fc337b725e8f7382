"""Rules of operations that choose or overwrite channels: gathers and writes to a window."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from repjax.tracing.linear.affine import Affine
from repjax.tracing.linear.forms import State
from repjax.tracing.linear.per_channel import vector_of
from repjax.tracing.linear.roles import CHANNEL, ArrayAxis, Relation, Roles
from repjax.tracing.linear.rules.elementwise import masked
from repjax.tracing.linear.rules.rule import NOT_REAL, Operand, Rule, same_axes, state_of
from repjax.tracing.program.program import Operation, Value
from repjax.tracing.program.weights import Weight, constant_value, is_float


def _relate_gather(operation: Operation, roles: Roles) -> Relation | str:
    data, indices = operation.operands
    params = operation.params
    numbers = params["dimension_numbers"]
    if not isinstance(data, Value) or not isinstance(indices, Weight):
        return "its places depend on data"
    if not is_float(data.dtype):
        return NOT_REAL
    places = constant_value(indices)
    along = numbers.start_index_map
    plain = len(along) == 1 and numbers.collapsed_slice_dims == along
    plain &= places is not None and places.ndim == 2 and places.shape[1] == 1
    plain &= not getattr(numbers, "operand_batching_dims", ())
    if not plain or len(operation.result.shape) != len(data.shape):
        return "it gathers something else than channels"
    assert places is not None
    whole = [size for axis, size in enumerate(data.shape) if axis != along[0]]
    taken = [size for axis, size in enumerate(params["slice_sizes"]) if axis != along[0]]
    inside = np.all((places >= 0) & (places < data.shape[along[0]]))
    if whole != taken or not inside:
        return "it gathers something else than whole channels"
    new = _gathered_axis(operation)
    kept = [axis for axis in range(len(data.shape)) if axis != along[0]]
    return Relation(
        [
            (ArrayAxis(data, one), ArrayAxis(operation.result, two))
            for one, two in zip(kept, numbers.offset_dims, strict=True)
        ],
        [(ArrayAxis(data, along[0]), CHANNEL), (ArrayAxis(operation.result, new), CHANNEL)],
    )


def _gathered_axis(operation: Operation) -> int:
    offsets = operation.params["dimension_numbers"].offset_dims
    (axis,) = set(range(len(operation.result.shape))) - set(offsets)
    return axis


def _gather(operation: Operation, operands: Sequence[Operand], affine: Affine) -> State:
    (data,) = operation.data
    places = constant_value(operation.weights[0])
    assert places is not None
    chosen = [int(place) for place in places.ravel()]
    select = affine.select(chosen, affine.features(data), affine.layout(data).dims)
    return affine.follow(state_of(operands[0]), select, data, operation.result)


def _window(operation: Operation) -> tuple[int, int, int] | None:
    """Axis, start and length of the one window that is overwritten; None if it is not known."""
    target, params = operation.operands[0], operation.params
    shape = target.shape or ()
    if operation.name == "dynamic_update_slice":
        update = operation.operands[1]
        found = [_number(one) for one in operation.operands[2:]]
        pairs = list(zip(shape, update.shape or (), strict=True))
    else:
        update = operation.operands[2]
        numbers = params["dimension_numbers"]
        indices = operation.operands[1]
        places = constant_value(indices) if isinstance(indices, Weight) else None
        whole = tuple(range(len(update.shape or ())))
        inserted = tuple(numbers.inserted_window_dims)
        plain = places is not None and places.ndim == 1 and params["update_jaxpr"] is None
        plain &= numbers.update_window_dims == whole
        plain &= not inserted or inserted == tuple(numbers.scatter_dims_to_operand_dims)
        if not plain or len(inserted) > 1 or (inserted and isinstance(update, Value)):
            return None
        assert places is not None
        if inserted:
            return _one_channel(shape, update.shape or (), inserted[0], int(places[0]))
        found = [0] * len(shape)
        for axis, place in zip(numbers.scatter_dims_to_operand_dims, places, strict=True):
            found[axis] = int(place)
        pairs = list(zip(shape, update.shape or (), strict=True))
    narrow = [axis for axis, (a, b) in enumerate(pairs) if a != b]
    if len(narrow) != 1 or any(number is None for number in found):
        return None
    (axis,) = narrow
    start, length = found[axis], pairs[axis][1]
    inside = start is not None and 0 <= start <= pairs[axis][0] - length
    alone = all(number == 0 for place, number in enumerate(found) if place != axis)
    return (axis, start, length) if inside and alone and start is not None else None


def _one_channel(
    shape: tuple[int, ...], update: tuple[int, ...], axis: int, place: int
) -> tuple[int, int, int] | None:
    whole = update == (*shape[:axis], *shape[axis + 1 :])
    return (axis, place, 1) if whole and 0 <= place < shape[axis] else None


def _number(operand: Value | Weight) -> int | None:
    found = constant_value(operand) if isinstance(operand, Weight) else None
    return None if found is None else int(found)


def _relate_write(operation: Operation, roles: Roles) -> Relation | str:
    window = _window(operation)
    if window is None:
        return "it writes something else than a constant window of channels"
    target, update = _target_and_update(operation)
    if not all(is_float(one.dtype) for one in (target, update)):
        return NOT_REAL
    axis, result = window[0], operation.result
    relation = Relation(roles=[(ArrayAxis(result, axis), CHANNEL)])
    for operand in (target, update):
        if isinstance(operand, Value):
            relation.roles.append((ArrayAxis(operand, axis), CHANNEL))
            relation.same += [pair for pair in same_axes(operand, result) if pair[0].place != axis]
    return relation


def _target_and_update(operation: Operation) -> tuple[Value | Weight, Value | Weight]:
    last = 1 if operation.name == "dynamic_update_slice" else 2
    return operation.operands[0], operation.operands[last]


def _write(operation: Operation, operands: Sequence[Operand], affine: Affine) -> State:
    window = _window(operation)
    assert window is not None
    _, start, length = window
    value, layout = operation.result, affine.layout(operation.result)
    features = affine.features(value)
    inside = np.zeros((features,), bool)
    inside[start : start + length] = True
    chosen = [place - start if inside[place] else -1 for place in range(features)]
    update = operands[1 if operation.name == "dynamic_update_slice" else 2]
    if isinstance(update, Weight):
        update = _with_channel(update, len(value.shape), layout.channel, affine)
        vector = vector_of(affine, update, length, layout)
        spread = affine.picked(vector, chosen)
        rest = masked(affine, operands[:1], [~inside], value)
        return affine.shift_channels(rest, spread, value)
    select = affine.select(chosen, length, layout.dims)
    placed = affine.settled(affine.follow(update, select, value))
    return affine.add([masked(affine, operands[:1], [~inside], value), placed])


def _with_channel(update: Weight, rank: int, channel: int, affine: Affine) -> Weight:
    shape = update.shape or ()
    if len(shape) == rank:
        return update
    return affine.weights.node(
        *("expanded", [update], lambda found: jnp.expand_dims(found, channel)),
        static=channel,
        shape=(*shape[:channel], 1, *shape[channel:]),
        dtype=update.dtype,
    )


RULES = {
    "gather": Rule(_relate_gather, _gather, 2),
    "scatter": Rule(_relate_write, _write, 2),
    "dynamic_update_slice": Rule(_relate_write, _write, 2),
}
