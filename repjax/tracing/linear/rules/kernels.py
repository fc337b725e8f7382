"""Rules of what multiplies or adds up over channels and space: convolution, product, pool, sum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from repjax.algebra import geometry
from repjax.algebra.shapes import Shape
from repjax.tracing.linear.affine import Affine
from repjax.tracing.linear.forms import State, Summed
from repjax.tracing.linear.roles import BATCH, CHANNEL, SPACE, ArrayAxis, Relation, Roles
from repjax.tracing.linear.rules.rule import (
    NOT_REAL,
    Operand,
    Rule,
    all_float,
    same_axes,
    state_of,
)
from repjax.tracing.program.program import Operation, Value
from repjax.tracing.program.weights import Weight


def _relate_convolution(operation: Operation, roles: Roles) -> Relation | str:
    data, kernel = operation.operands
    params = operation.params
    if not isinstance(data, Value) or not isinstance(kernel, Weight):
        return "a convolution with data as its kernel"
    if not all_float(operation):
        return NOT_REAL
    if params["batch_group_count"] != 1 or 0 in (kernel.shape or ()):
        return "a convolution that groups its batch"
    if not all(isinstance(end, int) for pair in params["padding"] for end in pair):
        return "its padding depends on a symbolic size"
    inside, outside = params["dimension_numbers"].lhs_spec, params["dimension_numbers"].out_spec
    relation = Relation()
    for place, (one, two) in enumerate(zip(inside, outside, strict=True)):
        before, after = ArrayAxis(data, one), ArrayAxis(operation.result, two)
        if place == 1:
            relation.roles += [(before, CHANNEL), (after, CHANNEL)]
        else:
            relation.same.append((before, after))
            relation.roles.append((before, SPACE if place > 1 else BATCH))
    return relation


def _convolution(operation: Operation, operands: Sequence[Operand], affine: Affine) -> State:
    state, kernel = operands
    (data,) = operation.data
    assert isinstance(kernel, Weight)
    params = operation.params
    numbers = params["dimension_numbers"]
    layout = affine.layout(data)
    places = [numbers.lhs_spec[2:].index(axis) for axis in layout.space]
    order = [*(numbers.rhs_spec[2 + place] for place in places), *numbers.rhs_spec[1::-1]]
    assert kernel.shape is not None
    axes = tuple(
        geometry.Axis(
            kernel.shape[numbers.rhs_spec[2 + place]],
            stride=params["window_strides"][place],
            low=params["padding"][place][0],
            high=params["padding"][place][1],
            dilation=params["rhs_dilation"][place],
            input_dilation=params["lhs_dilation"][place],
        )
        for place in places
    )
    groups = params["feature_group_count"]
    shape = Shape(axes, affine.features(data), affine.features(operation.result), groups)
    second = affine.of_kernel(kernel, order, shape)
    return affine.follow(state_of(state), second, data, operation.result)


def _relate_product(operation: Operation, roles: Roles) -> Relation | str:
    if len(operation.data) != 1:
        return "product of data"
    if not all_float(operation):
        return NOT_REAL
    contract, batch = operation.params["dimension_numbers"]
    first = isinstance(operation.operands[0], Value)
    data, weight = operation.data[0], operation.weights[0]
    if any(batch) or any(len(axes) != 1 for axes in contract) or len(weight.shape or ()) != 2:
        return "a product over more than one axis"
    if 0 in (weight.shape or ()):
        return "a product with an empty weight"
    (contracted,) = contract[0 if first else 1]
    rest = [axis for axis in range(len(data.shape)) if axis != contracted]
    start = 0 if first else 1
    out = len(rest) if first else 0
    return Relation(
        [
            (ArrayAxis(data, axis), ArrayAxis(operation.result, start + place))
            for place, axis in enumerate(rest)
        ],
        [(ArrayAxis(data, contracted), CHANNEL), (ArrayAxis(operation.result, out), CHANNEL)],
    )


def _product(operation: Operation, operands: Sequence[Operand], affine: Affine) -> State:
    first = isinstance(operation.operands[0], Value)
    data, weight = operation.data[0], operation.weights[0]
    contracted = operation.params["dimension_numbers"][0][1 if first else 0][0]
    dims = affine.layout(data).dims
    features = affine.features(data), affine.features(operation.result)
    shape = Shape((geometry.Axis(1),) * dims, *features)
    second = affine.of_kernel(weight, (contracted, 1 - contracted), shape)
    return affine.follow(state_of(operands[0 if first else 1]), second, data, operation.result)


def _relate_pool(operation: Operation, roles: Roles) -> Relation | str:
    if not all_float(operation):
        return NOT_REAL
    (data,) = operation.data
    params = operation.params
    if not all(isinstance(end, int) for pair in params["padding"] for end in pair):
        return "its padding depends on a symbolic size"
    relation = Relation(same=same_axes(data, operation.result))
    for axis in range(len(data.shape)):
        if _window(params, axis) != geometry.Axis(1):
            relation.roles.append((ArrayAxis(data, axis), SPACE))
    return relation


def _pool(operation: Operation, operands: Sequence[Operand], affine: Affine) -> State:
    (data,) = operation.data
    state = state_of(operands[0])
    wide = _covered(operation)
    if wide:
        count = math.prod(data.shape[axis] for axis in wide)
        return Summed(affine.settled(state), data, wide, count, operation.result.dtype)
    axes = [_window(operation.params, axis) for axis in affine.layout(data).space]
    window = affine.window(affine.features(data), axes)
    return affine.follow(state, window, data, operation.result)


def _covered(pool: Operation) -> tuple[int, ...]:
    """The axes that a pool sums over as a whole; empty for a pool of smaller windows."""
    (data,), params = pool.data, pool.params
    windows = [_window(params, axis) for axis in range(len(data.shape))]
    wide = tuple(axis for axis, window in enumerate(windows) if window.taps > 1)
    for axis in wide:
        window, size = windows[axis], data.shape[axis]
        if not isinstance(size, int) or window.outputs(size) != 1 or window.input_dilation > 1:
            return ()
        if window.dilation > 1 or window.first > 0 or window.last < size - 1:
            return ()
    return wide


def _window(params: dict[str, Any], axis: int) -> geometry.Axis:
    low, high = params["padding"][axis]
    return geometry.Axis(
        params["window_dimensions"][axis],
        params["window_strides"][axis],
        low,
        high,
        params["window_dilation"][axis],
        params["base_dilation"][axis],
    )


def _relate_sum(operation: Operation, roles: Roles) -> Relation | str:
    (data,) = operation.data
    gone = operation.params["axes"]
    found = [roles.role(ArrayAxis(data, axis)) for axis in gone]
    if not all_float(operation):
        return NOT_REAL
    if CHANNEL in found:
        return "a sum over the channels"
    if BATCH in found:
        return "a sum over the batch"
    if not all(isinstance(data.shape[axis], int) for axis in gone) or 0 in data.shape:
        return "a sum over a symbolic size"
    kept = [axis for axis in range(len(data.shape)) if axis not in gone]
    return Relation(
        [(ArrayAxis(data, one), ArrayAxis(operation.result, two)) for two, one in enumerate(kept)],
        [(ArrayAxis(data, axis), SPACE) for axis in gone],
    )


def _sum_over_axes(operation: Operation, operands: Sequence[Operand], affine: Affine) -> State:
    (data,) = operation.data
    axes = tuple(operation.params["axes"])
    count = math.prod(data.shape[axis] for axis in axes)
    form = affine.settled(state_of(operands[0]))
    return Summed(form, data, axes, count, data.dtype)


RULES = {
    "conv_general_dilated": Rule(_relate_convolution, _convolution, 0),
    "dot_general": Rule(_relate_product, _product, 0),
    "reduce_window_sum": Rule(_relate_pool, _pool, 2),
    "reduce_sum": Rule(_relate_sum, _sum_over_axes, 3),
}
