"""Rules of convolutions, products over the channels, and pools."""

from __future__ import annotations

from typing import Any

from repjax.algebra import geometry
from repjax.algebra.shapes import Shape
from repjax.tracing.axes import CHANNEL, SPACE, Axes, Axis, Relation
from repjax.tracing.expressions import Node, is_float
from repjax.tracing.forms import Form
from repjax.tracing.graph import Operation, Value
from repjax.tracing.rules import Context, rule, same_axes
from repjax.tracing.rules_elementwise import covers_everything


def _all_float(operation: Operation) -> bool:
    return all(is_float(operand.dtype) for operand in [*operation.operands, operation.result])


def _relate_convolution(operation: Operation, axes: Axes) -> Relation | None:
    data, kernel = operation.operands
    params = operation.params
    if not isinstance(data, Value) or not isinstance(kernel, Node) or not _all_float(operation):
        return None
    if params["batch_group_count"] != 1 or 0 in (kernel.shape or ()):
        return None
    inside, outside = params["dimension_numbers"].lhs_spec, params["dimension_numbers"].out_spec
    relation = Relation()
    for place, (one, two) in enumerate(zip(inside, outside, strict=True)):
        before, after = Axis(data, one), Axis(operation.result, two)
        if place == 1:
            relation.meanings += [(before, CHANNEL), (after, CHANNEL)]
        else:
            relation.same.append((before, after))
            if place > 1:
                relation.meanings.append((before, SPACE))
    return relation


@rule("conv_general_dilated", relate=_relate_convolution, rank=0)
def _convolution(operation: Operation, context: Context) -> Form:
    data, kernel = operation.operands
    assert isinstance(data, Value)
    assert isinstance(kernel, Node)
    params = operation.params
    numbers = params["dimension_numbers"]
    layout = context.layout(data)
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
    shape = Shape(axes, context.features(data), context.features(operation.result), groups)
    second = context.maps.kernel(kernel, order, shape)
    return context.maps.follow(context.form(data), second, data)


def _relate_product(operation: Operation, axes: Axes) -> Relation | None:
    if len(operation.data) != 1 or not _all_float(operation):
        return None
    (contract, batch) = operation.params["dimension_numbers"]
    first = isinstance(operation.operands[0], Value)
    data = operation.data[0]
    weight = operation.operands[1 if first else 0]
    if any(batch) or any(len(axes) != 1 for axes in contract) or len(weight.shape or ()) != 2:
        return None
    (contracted,) = contract[0 if first else 1]
    rest = [axis for axis in range(len(data.shape)) if axis != contracted]
    start = 0 if first else 1
    relation = Relation(
        same=[
            (Axis(data, axis), Axis(operation.result, start + place))
            for place, axis in enumerate(rest)
        ]
    )
    out = len(rest) if first else 0
    relation.meanings = [(Axis(data, contracted), CHANNEL), (Axis(operation.result, out), CHANNEL)]
    return relation


@rule("dot_general", relate=_relate_product, rank=0)
def _product(operation: Operation, context: Context) -> Form:
    first = isinstance(operation.operands[0], Value)
    data, weight = operation.data[0], operation.operands[1 if first else 0]
    assert isinstance(weight, Node)
    contracted = operation.params["dimension_numbers"][0][1 if first else 0][0]
    dims = context.layout(data).dims
    shape = Shape(
        (geometry.Axis(1),) * dims, context.features(data), context.features(operation.result)
    )
    second = context.maps.kernel(weight, (contracted, 1 - contracted), shape)
    return context.maps.follow(context.form(data), second, data)


def _relate_pool(operation: Operation, axes: Axes) -> Relation | None:
    if not _all_float(operation) or covers_everything(operation):
        return None
    (data,) = operation.data
    params = operation.params
    relation = Relation(same=same_axes(data, operation.result))
    for axis in range(len(data.shape)):
        if _window(params, axis) != geometry.Axis(1):
            relation.meanings.append((Axis(data, axis), SPACE))
    return relation


@rule("reduce_window_sum", relate=_relate_pool, rank=2)
def _pool(operation: Operation, context: Context) -> Form:
    (data,) = operation.data
    axes = [_window(operation.params, axis) for axis in context.layout(data).space]
    second = context.maps.window(context.features(data), axes)
    return context.maps.follow(context.form(data), second, data)


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
