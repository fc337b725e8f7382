"""Rules of operations that only move numbers: pad, crop, stride, transpose, reshape, stack."""

from __future__ import annotations

from typing import Any

from repjax.algebra import geometry, shapes
from repjax.tracing.axes import BATCH, CHANNEL, SPACE, Axes, Axis, Relation
from repjax.tracing.expressions import Node, is_float
from repjax.tracing.forms import Apart, Form
from repjax.tracing.graph import Operation, Value
from repjax.tracing.rules import Context, rule, same_axes
from repjax.tracing.zeros import is_zero


def _moved(operation: Operation, axes: Axes, touched: list[int]) -> Relation | None:
    """Relation of a pad or slice: touched axes are channels where known, else space."""
    data = operation.data[0]
    if not is_float(data.dtype) or len(operation.data) != 1:
        return None
    relation = Relation()
    for one, two in same_axes(data, operation.result):
        known = axes.meaning(one) or axes.meaning(two)
        if one.place in touched and known == CHANNEL:
            relation.meanings += [(one, CHANNEL), (two, CHANNEL)]
        else:
            relation.same.append((one, two))
            if one.place in touched:
                relation.meanings.append((one, SPACE))
    return relation


def _relate_pad(operation: Operation, axes: Axes) -> Relation | None:
    config = operation.params["padding_config"]
    touched = [axis for axis, entry in enumerate(config) if any(entry)]
    return _moved(operation, axes, touched)


@rule("pad", relate=_relate_pad, rank=2)
def _pad(operation: Operation, context: Context) -> Form:
    data, value = operation.operands
    assert isinstance(data, Value)
    if not isinstance(value, Node):
        raise Apart("padding with data")
    config = operation.params["padding_config"]
    layout = context.layout(data)
    axes = [
        geometry.Axis(1, 1, config[axis][0], config[axis][1], 1, config[axis][2] + 1)
        for axis in layout.space
    ]
    form, maps = context.form(data), context.maps
    shift = None
    if not is_zero(value):
        shift = context.vector(value, data)
        form, _ = maps.merge([form, Form((), maps.vector("neg", shift))])
    form = maps.follow(form, maps.window(context.features(data), axes), data)
    low, high, interior = config[layout.channel]
    if (low, high, interior) != (0, 0, 0):
        if interior or low < 0 or high < 0:
            raise Apart("channels are spread")
        chosen = [-1] * low + list(range(context.features(data))) + [-1] * high
        select = maps.select(chosen, context.features(data), layout.dims)
        form = maps.follow(form, select, operation.result)
    if shift is not None:
        form, _ = maps.merge([form, Form((), context.vector(value, operation.result))])
    return form


def _relate_slice(operation: Operation, axes: Axes) -> Relation | None:
    data = operation.data[0]
    strides = operation.params["strides"] or (1,) * len(data.shape)
    touched = [
        axis
        for axis, size in enumerate(data.shape)
        if operation.result.shape[axis] != size or strides[axis] != 1
    ]
    return _moved(operation, axes, touched)


@rule("slice", relate=_relate_slice, rank=2)
def _slice(operation: Operation, context: Context) -> Form:
    (data,) = operation.data
    params = operation.params
    starts, strides = params["start_indices"], params["strides"] or (1,) * len(data.shape)
    layout = context.layout(data)
    axes = []
    for axis in layout.space:
        start, stride, count = starts[axis], strides[axis], operation.result.shape[axis]
        reach = (count - 1) * stride + 1 - data.shape[axis]
        axes.append(geometry.Axis(1, stride, -start, reach + start))
    maps, features = context.maps, context.features(data)
    form = maps.follow(context.form(data), maps.window(features, axes), data)
    channel = layout.channel
    chosen = range(features)[starts[channel] : params["limit_indices"][channel] : strides[channel]]
    if chosen != range(features):
        select = maps.select(chosen, features, layout.dims)
        form = maps.follow(form, select, operation.result)
    return form


def _relate_transpose(operation: Operation, axes: Axes) -> Relation | None:
    (data,) = operation.data
    if not is_float(data.dtype):
        return None
    order = operation.params["permutation"]
    return Relation(
        [(Axis(data, one), Axis(operation.result, two)) for two, one in enumerate(order)]
    )


@rule("transpose", relate=_relate_transpose, rank=1)
def _transpose(operation: Operation, context: Context) -> Form:
    (data,) = operation.data
    batch = [
        operation.params["permutation"][axis] for axis in context.layout(operation.result).batch
    ]
    if batch != sorted(batch):
        raise Apart("batch axes change places")
    return context.form(data)


def _relate_reshape(operation: Operation, axes: Axes) -> Relation | None:
    (data,) = operation.data
    result = operation.result
    if not is_float(data.dtype) or operation.params.get("dimensions") is not None:
        return None
    pairs = _matching(data.shape, result.shape)
    if pairs is None:
        return None
    relation = Relation()
    for ones, twos in pairs:
        wide_ones = [axis for axis in ones if not _is_one(data.shape[axis])]
        wide_twos = [axis for axis in twos if not _is_one(result.shape[axis])]
        if len(wide_ones) == len(wide_twos) == 1:
            relation.same.append((Axis(data, wide_ones[0]), Axis(result, wide_twos[0])))
            ones = [axis for axis in ones if axis not in wide_ones]
            twos = [axis for axis in twos if axis not in wide_twos]
        elif len(ones) == len(twos) == 1:
            relation.same.append((Axis(data, ones[0]), Axis(result, twos[0])))
            continue
        relation.meanings += [(Axis(data, axis), BATCH) for axis in ones]
        relation.meanings += [(Axis(result, axis), BATCH) for axis in twos]
    return relation


def _matching(
    one: tuple[Any, ...], two: tuple[Any, ...]
) -> list[tuple[list[int], list[int]]] | None:
    """Runs of axes of equal product, in order."""
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


def _is_one(size: Any) -> bool:
    return isinstance(size, int) and size == 1


def _relate_broadcast(operation: Operation, axes: Axes) -> Relation | None:
    (data,) = operation.data
    places = operation.params["broadcast_dimensions"]
    if not is_float(data.dtype) or any(
        data.shape[axis] != operation.result.shape[place] for axis, place in enumerate(places)
    ):
        return None
    added = [axis for axis in range(len(operation.result.shape)) if axis not in places]
    if any(not _is_one(operation.result.shape[axis]) for axis in added):
        return None
    return Relation(
        [(Axis(data, axis), Axis(operation.result, place)) for axis, place in enumerate(places)],
        [(Axis(operation.result, axis), BATCH) for axis in added],
    )


def _relate_squeeze(operation: Operation, axes: Axes) -> Relation | None:
    (data,) = operation.data
    if not is_float(data.dtype):
        return None
    removed = operation.params["dimensions"]
    kept = [axis for axis in range(len(data.shape)) if axis not in removed]
    return Relation(
        [(Axis(data, one), Axis(operation.result, two)) for two, one in enumerate(kept)],
        [(Axis(data, axis), BATCH) for axis in removed],
    )


@rule("reshape", relate=_relate_reshape, rank=2)
def _reshape(operation: Operation, context: Context) -> Form:
    return context.form(operation.data[0])


rule("broadcast_in_dim", relate=_relate_broadcast, rank=2)(_reshape)
rule("squeeze", relate=_relate_squeeze, rank=2)(_reshape)


def _relate_stack(operation: Operation, axes: Axes) -> Relation | None:
    result, along = operation.result, operation.params["dimension"]
    if len(operation.data) != len(operation.operands) or not is_float(result.dtype):
        return None
    relation = Relation(meanings=[(Axis(result, along), CHANNEL)])
    for value in operation.data:
        relation.same += [pair for pair in same_axes(value, result) if pair[0].place != along]
        relation.meanings.append((Axis(value, along), CHANNEL))
    return relation


@rule("concatenate", relate=_relate_stack, rank=3)
def _stack(operation: Operation, context: Context) -> Form:
    maps = context.maps
    forms = [maps.settle(context.form(value)) for value in operation.data]
    bases = {base for form in forms for base, _ in form.terms}
    if len(bases) != 1 or any(len(form.terms) != 1 for form in forms):
        raise Apart("channels of different inputs are stacked")
    (base,) = bases
    parts = [form.terms[0][1] for form in forms]
    sizes = context.sizes(base)
    for part in parts[1:]:
        problems = shapes.parallel_problems((parts[0].shape, part.shape), sizes, False)
        if problems:
            raise Apart("; ".join(problems))
    if all(form.bias is None for form in forms):
        return Form(((base, maps.stack(parts, sizes)),))
    biases = [
        maps.full(0.0, part.shape.features) if form.bias is None else form.bias
        for form, part in zip(forms, parts, strict=True)
    ]
    return Form(((base, maps.stack(parts, sizes)),), maps.joined(biases))
