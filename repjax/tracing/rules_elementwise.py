"""Rules of elementwise operations: sums, differences, scales, shifts, casts."""

from __future__ import annotations

from repjax.tracing.axes import CHANNEL, Axes, Axis, Relation
from repjax.tracing.expressions import Node, is_float
from repjax.tracing.forms import Apart, Form
from repjax.tracing.graph import Operation, Value
from repjax.tracing.rules import Context, rule, same_axes, varying


def _relate(operation: Operation, axes: Axes) -> Relation | None:
    result = operation.result
    if any(value.shape != result.shape for value in operation.data) or not result.shape:
        return None
    if not all(is_float(value.dtype) for value in [*operation.data, result]):
        return None
    relation = Relation()
    for value in operation.data:
        relation.same += same_axes(value, result)
    return relation


def channel_of_vector(operation: Operation) -> Relation | None:
    """A weight that varies along one axis is taken to vary over the channels."""
    for operand in operation.operands:
        if isinstance(operand, Node) and operation.name in {"add", "sub", "mul", "div"}:
            along = varying(operand)
            if len(along) == 1:
                return Relation(meanings=[(Axis(operation.result, min(along)), CHANNEL)])
    return None


@rule("add", "add_any", "sub", relate=_relate, rank=1)
def _sum(operation: Operation, context: Context) -> Form:
    forms = []
    for place, operand in enumerate(operation.operands):
        if isinstance(operand, Node):
            form = Form((), context.vector(operand, operation.result))
        else:
            form = context.form(operand)
        if place == 1 and operation.name == "sub":
            form = _scaled(
                form,
                context.maps.full(-1.0, context.features(operation.result)),
                operation.result,
                context,
            )
        forms.append(form)
    return context.merge(operation, forms)


@rule("neg", relate=_relate, rank=1)
def _negative(operation: Operation, context: Context) -> Form:
    minus = context.maps.full(-1.0, context.features(operation.result))
    return _scaled(context.form(operation.data[0]), minus, operation.result, context)


@rule("mul", "div", relate=_relate, rank=1)
def _scale(operation: Operation, context: Context) -> Form:
    one, two = operation.operands
    if isinstance(one, Value) and isinstance(two, Value):
        raise Apart("product of data" if operation.name == "mul" else "quotient of data")
    if operation.name == "div" and isinstance(two, Value):
        raise Apart("division by data")
    data, weight = (one, two) if isinstance(one, Value) else (two, one)
    assert isinstance(data, Value)
    assert isinstance(weight, Node)
    if not varying(weight) and is_spatial_sum(data):
        raise Apart("the mean over space keeps its own 1/N")
    vector = context.vector(weight, operation.result)
    if operation.name == "div":
        ones = context.maps.full(1.0, context.features(operation.result))
        vector = context.maps.vector("div", ones, vector)
    return _scaled(context.form(data), vector, operation.result, context)


@rule("convert_element_type", "copy", "copy_p", relate=_relate, rank=1)
def _same(operation: Operation, context: Context) -> Form:
    return context.form(operation.data[0])


def _scaled(form: Form, vector: Node, value: Value, context: Context) -> Form:
    if not form.terms:
        return Form((), context.maps.vector("mul", form.bias, vector))
    scale = context.maps.scaled(vector, context.layout(value).dims)
    return context.maps.follow(form, scale, value)


def is_spatial_sum(value: Value) -> bool:
    """Whether a value is the sum over all of space, whose mean depends on the resolution."""
    producer = value.producer
    while producer is not None and producer.name in {
        *("reshape", "squeeze", "broadcast_in_dim", "convert_element_type")
    }:
        producer = producer.data[0].producer
    if producer is None:
        return False
    if producer.name == "reduce_window_sum":
        return covers_everything(producer)
    return producer.name == "reduce_sum"


def covers_everything(pool: Operation) -> bool:
    """Whether a pool has one window, as large as its input."""
    window = pool.params["window_dimensions"]
    wide = [axis for axis, size in enumerate(window) if size != 1]
    return bool(wide) and all(
        pool.result.shape[axis] == 1 and window[axis] >= pool.data[0].shape[axis] for axis in wide
    )
