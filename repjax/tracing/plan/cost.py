"""What a computation costs, so that nothing becomes more expensive by being fused.

The unit is one multiply-accumulate for one example of the batch. A kernel (convolution,
product, pool, elementwise operation, copy) costs its multiply-accumulates, plus `cost`
(`ELEMENT_COST` by default) for every element it writes, which stands for memory and for the
launch, plus the numbers that it stores beyond a kernel and a bias per channel (a bias map, an
image) or works out of others on every call.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

from repjax import primitives
from repjax.primitives import Kind
from repjax.tracing.linear.affine import Affine
from repjax.tracing.linear.forms import Mean
from repjax.tracing.linear.maps import Map
from repjax.tracing.linear.per_channel import varying
from repjax.tracing.plan.outcome import MULTIPLIES, Outcome, Part, Term
from repjax.tracing.program.program import Operation, Value
from repjax.tracing.program.weights import Weight, reachable

ELEMENT_COST = 1.0
"""Multiply-accumulates that writing one element is worth, by default."""

IN_PASSING = 0.25
"""The part of it where a bias is added: compilers write it in the pass of the kernel before."""

SYMBOLIC_SIZE = 32
"""What a symbolic size counts for."""


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One computation, per example.

    Args:
        kind: "convolution", "product", "pool", "mean", "scale", "add", "move", "weights", ...
        macs: multiply-accumulates.
        elements: elements written.
        numbers: numbers stored or worked out on every call beyond kernel and bias.
    """

    kind: str
    macs: float
    elements: float
    numbers: float = 0.0


Cost = float | Callable[[Kernel], float]


def price(kernels: Sequence[Kernel], cost: Cost) -> float:
    """The cost of some kernels: `cost` is the price of an element, or prices a kernel."""
    if callable(cost):
        return sum(cost(kernel) for kernel in kernels)
    return sum(kernel.macs + cost * kernel.elements + kernel.numbers for kernel in kernels)


def elements(value: Value, affine: Affine, features: int | None = None) -> float:
    """Number of elements of one example: all axes but batch (the first where none is known)."""
    layout = affine.layout(value)
    batch = layout.known_batch or layout.batch[:1]
    axes = [a for a in range(len(value.shape)) if a not in (*batch, layout.channel)]
    sizes = [value.shape[axis] for axis in axes]
    count = math.prod(size if isinstance(size, int) else SYMBOLIC_SIZE for size in sizes)
    return float(count * (affine.features(value) if features is None else features))


def is_light(weight: Weight) -> bool:
    """Whether a weight only rearranges its operand, or is no computation at all."""
    free = primitives.look_up(weight.name).kind is Kind.FREE
    return free or weight.name in {"variable", "constant", "transpose", "slice", "iota"}


def written(value: Value, affine: Affine) -> list[Kernel]:
    """The kernels that make a value as the program has it, weights included."""
    operation = value.producer
    assert operation is not None
    count = elements(value, affine)
    kernels = [
        Kernel("weights", 0, 0, math.prod(part.shape or ()))
        for weight in operation.weights
        for part in reachable([weight])
        if part.variables and not is_light(part)
    ]
    return [*kernels, *_written(operation, value, count, affine)]


def _written(operation: Operation, value: Value, count: float, affine: Affine) -> list[Kernel]:
    name, params, kind = operation.name, operation.params, operation.kind
    if name == "conv_general_dilated":
        kernel = operation.operands[1].shape or ()
        features = kernel[params["dimension_numbers"].rhs_spec[0]]
        macs = math.prod(kernel) / features / math.prod(params["lhs_dilation"])
        return [Kernel("convolution", count * macs, count)]
    if name == "dot_general":
        ((one,), _), _ = params["dimension_numbers"]
        return [Kernel("product", count * (operation.operands[0].shape or ())[one], count)]
    if name == "reduce_window_sum":
        return [Kernel("pool", count * math.prod(params["window_dimensions"]), count)]
    if name == "reduce_sum":
        return [Kernel("mean", 0, elements(operation.data[0], affine))]
    if kind is Kind.FREE:
        return []
    if kind is Kind.SUM:
        return [_written_sum(operation, value, count, affine)]
    if kind is Kind.SCALE and name != "neg":
        return [Kernel("scale", count, count)]
    if kind is Kind.MOVE:
        return [Kernel("move", 0, count)]
    return [Kernel(name, 0, count)]


def _written_sum(operation: Operation, value: Value, count: float, affine: Affine) -> Kernel:
    if len(operation.data) == 2:
        return Kernel("add", 0, count)
    (weight,), (data,) = operation.weights, operation.data
    layout, numbers = affine.layout(value), 0
    if varying(weight) & set(layout.space) and len(weight.shape or ()) == len(value.shape):
        numbers = math.prod(size for size in weight.shape or () if isinstance(size, int))
    after = data.producer is not None and data.producer.kind is Kind.KERNEL
    alone = after and len(data.consumers) == 1 and not data.is_output
    return Kernel("add", 0, count * IN_PASSING if alone else count, numbers)


def fused(outcome: Outcome, affine: Affine) -> list[Kernel]:
    """The kernels of an outcome: its maps, their sums, biases, and what comes after."""
    kernels = [one for part in outcome.parts for one in _of_part(part, outcome.value, affine)]
    if len(outcome.parts) > 1:
        kernels.append(Kernel("move", 0, elements(outcome.value, affine)))
    if outcome.view is not None and outcome.viewed is not None:
        features = outcome.view.shape.features
        kernels.append(Kernel("move", 0, elements(outcome.viewed, affine, features)))
    for operation in outcome.operations:
        kernels += written(operation.result, affine)
    return kernels


def _of_part(part: Part, value: Value, affine: Affine) -> list[Kernel]:
    count = elements(value, affine, part.features)
    kernels = [kernel for term in part.terms for kernel in _of_term(term, count, affine)]
    kernels += [Kernel("add", 0, count)] * max(len(part.terms) - 1, 0)
    numbers = sum(math.prod(one.shape.kernel_shape) for _, one in part.bias_maps)
    if part.image is not None:
        numbers += math.prod(part.image.shape or ())
    if part.bias is not None or numbers:
        share = IN_PASSING if part.is_heavy else 1.0
        kernels.append(Kernel("add", 0, count * share, numbers))
    return kernels


def _of_term(term: Term, count: float, affine: Affine) -> list[Kernel]:
    kernels = []
    if isinstance(term.base, Mean):
        means = elements(term.base.value, affine) / term.base.count
        kernels.append(Kernel("mean", means, means * (term.base.count + 1)))
    if term.window is not None:
        share = count / term.map.shape.features * term.window.shape.features
        kernels.append(Kernel("pool", share * term.window.taps, share))
        if term.window.is_average:
            kernels.append(Kernel("scale", share, share))
    if term.kind in MULTIPLIES:
        kernels.append(Kernel(term.kind, count * _macs_per_element(term.map), count))
    elif term.kind == "view":
        kernels.append(Kernel("move", 0, count))
    elif term.kind == "scale":
        kernels.append(Kernel("scale", count, count))
    return kernels


def _macs_per_element(one: Map) -> float:
    """Multiply-accumulates for one output element of a map."""
    taps = math.prod(axis.taps / axis.input_dilation for axis in one.shape.axes)
    return taps * one.shape.in_features / one.shape.groups


def no_more_kernels(after: Sequence[Kernel], before: Sequence[Kernel]) -> bool:
    """Whether convolutions, these with products, and scales are each no more than before."""
    for kinds in (
        {"convolution"},
        MULTIPLIES,
        {"scale"},
    ):
        counts = [sum(one.kind in kinds for one in part) for part in (after, before)]
        if counts[0] > counts[1]:
            return False
    return True
