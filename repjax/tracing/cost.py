"""What a computation costs, so that nothing becomes more expensive by being fused.

The unit is one multiply-accumulate for one example of the batch. A kernel (convolution,
product, pool, elementwise operation, copy) costs its multiply-accumulates plus
`element_cost` for every element it writes, which stands for memory and for the launch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

from repjax.algebra.shapes import Shape
from repjax.tracing.axes import Layout
from repjax.tracing.expressions import Node, reachable
from repjax.tracing.forms import Form
from repjax.tracing.graph import Operation, Value
from repjax.tracing.maps import Map

ELEMENT_COST = 1.0
"""Multiply-accumulates that writing one element is worth, by default."""

MOVES = frozenset({"pad", "slice", "concatenate", "transpose"})
FREE = frozenset(
    {"reshape", "convert_element_type", "broadcast_in_dim", "squeeze", "copy", "copy_p"}
)
KERNELS = frozenset({"conv_general_dilated", "dot_general"})


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One computation: what it is, its multiply-accumulates and elements written, per example."""

    kind: str
    macs: float
    elements: float


Cost = float | Callable[[Kernel], float]


def price(kernels: Sequence[Kernel], cost: Cost) -> float:
    """The cost of some kernels: `cost` is the price of an element, or prices a kernel."""
    if callable(cost):
        return sum(cost(kernel) for kernel in kernels)
    return sum(kernel.macs + cost * kernel.elements for kernel in kernels)


def elements(value: Value, layout: Layout) -> float:
    """Number of elements of one example."""
    return float(math.prod(value.shape[axis] for axis in (*layout.space, layout.channel)))


def written(operation: Operation, layout: Layout) -> list[Kernel]:
    """The kernels of an operation as the program has it, weights included."""
    count = elements(operation.result, layout)
    name, params = operation.name, operation.params
    kernels = [
        Kernel("weights", math.prod(node.shape or ()), 0)
        for operand in operation.operands
        if isinstance(operand, Node) and operand.leaves
        for node in reachable([operand])
        if node.leaves and not is_light(node)
    ]
    if name == "conv_general_dilated":
        kernel = operation.operands[1].shape or ()
        features = kernel[params["dimension_numbers"].rhs_spec[0]]
        macs = math.prod(kernel) / features / math.prod(params["lhs_dilation"])
        return [*kernels, Kernel("convolution", count * macs, count)]
    if name == "dot_general":
        ((one,), _), _ = params["dimension_numbers"]
        return [
            *kernels,
            Kernel("product", count * (operation.operands[0].shape or ())[one], count),
        ]
    if name == "reduce_window_sum":
        return [Kernel("pool", count * math.prod(params["window_dimensions"]), count)]
    if name in FREE:
        return kernels
    return [*kernels, Kernel(name, 0 if name in MOVES else count, count)]


def is_light(node: Node) -> bool:
    """Whether a weight only rearranges its operand, or is no computation at all."""
    return node.name in {"leaf", "constant", "transpose", "slice", "iota"} or (node.name in FREE)


def kind(one: Map, *, spatial: bool) -> str:
    """How a map is carried out: identity, move, scale, product or convolution."""
    if one.is_identity:
        return "identity"
    if one.bare:
        return "move"
    if one.scale is not None:
        return "scale"
    pointwise = all(axis.taps == axis.stride == axis.input_dilation == 1 for axis in one.shape.axes)
    pointwise &= all(axis.low == axis.high == 0 for axis in one.shape.axes)
    return "product" if pointwise and one.shape.groups == 1 and not spatial else "convolution"


def fused(form: Form, root: Value, layout: Layout, *, spatial: bool) -> list[Kernel]:
    """The kernels of a form: its maps, their sum and the bias."""
    count = elements(root, layout)
    kernels = []
    for _, one in form.terms:
        name = kind(one, spatial=spatial)
        if name in {"product", "convolution"}:
            kernels.append(Kernel(name, count * macs_per_element(one.shape), count))
        elif name != "identity":
            kernels.append(Kernel(name, 0 if name == "move" else count, count))
    adds = max(len(form.terms) - 1, 0) + (form.bias is not None)
    return kernels + [Kernel("add", count, count)] * adds


def macs_per_element(shape: Shape) -> float:
    """Multiply-accumulates for one output element."""
    taps = math.prod(axis.taps / axis.input_dilation for axis in shape.axes)
    return taps * shape.in_features / shape.groups
