"""Instructions of a fused program: an operation as written, or a merged form."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from repjax.algebra.shapes import Shape
from repjax.tracing import programs
from repjax.tracing.axes import Layout
from repjax.tracing.expressions import Node, as_traced
from repjax.tracing.graph import Operation, Value

Environment = dict[Any, Any]


@dataclasses.dataclass(frozen=True)
class Replay:
    """An operation as the program has it."""

    operation: Operation

    def run(self, known: Environment) -> None:
        """Evaluate it and store its results."""
        operands = [
            as_traced(known[operand], operand.dtype)
            if isinstance(operand, Node)
            else known[operand]
            for operand in self.operation.operands
        ]
        results = programs.bind(self.operation.equation, operands)
        known.update(zip(self.operation.results, results, strict=True))


@dataclasses.dataclass(frozen=True)
class Term:
    """One map of a merged form: of which value, how, and with which parameter."""

    base: Value
    kind: str
    shape: Shape
    layout: Layout
    leaf: Node | None


@dataclasses.dataclass(frozen=True)
class Numbers:
    """In which types a merged form is computed."""

    compute: Any
    accumulate: Any
    precision: Any


@dataclasses.dataclass(frozen=True)
class Merged:
    """A sum of maps and a bias, written as few kernels."""

    root: Value
    terms: tuple[Term, ...]
    bias: Node | None
    layout: Layout
    numbers: Numbers

    def run(self, known: Environment) -> None:
        """Evaluate it and store the value of the root."""
        total = None
        for term in self.terms:
            part = self._term(term, known[term.base], known.get(term.leaf))
            total = part if total is None else total + part
        if self.bias is not None:
            bias = jnp.asarray(known[self.bias]).astype(self.numbers.accumulate)
            bias = _along(bias, self.layout.channel, len(self.root.shape))
            total = bias if total is None else total + bias
        assert total is not None
        result = jnp.broadcast_to(total, self.root.shape) if not self.terms else total
        known[self.root] = result.astype(self.root.dtype)

    def _term(self, term: Term, x: jax.Array, leaf: Any) -> jax.Array:
        numbers = self.numbers
        if term.kind in {"convolution", "product"}:
            y = self._contract(term, x.astype(numbers.compute), jnp.asarray(leaf))
            return y.astype(numbers.accumulate)
        x = x.astype(numbers.accumulate)
        if term.kind == "scale":
            scale = jnp.asarray(leaf).astype(numbers.accumulate)
            x = x * _along(scale, term.layout.channel, x.ndim)
        elif term.kind == "move":
            x = _move(x, term, self.layout.sizes(self.root))
        return self._arrange(x, term.layout)

    def _contract(self, term: Term, x: jax.Array, kernel: jax.Array) -> jax.Array:
        numbers, layout, out = self.numbers, term.layout, self.layout
        kernel = kernel.astype(numbers.compute)
        if term.kind == "product":
            kernel = kernel.reshape(kernel.shape[-2:])
            y = lax.dot_general(
                x,
                kernel,
                (((layout.channel,), (0,)), ((), ())),
                precision=numbers.precision,
                preferred_element_type=numbers.accumulate,
            )
            y = jnp.moveaxis(y, -1, layout.channel)
            return self._arrange(y, layout)
        dims = layout.dims
        direct = len(layout.batch) == len(out.batch) == 1
        if not direct:
            x = _standard(x, layout)
        spatial = tuple(range(1, dims + 1))
        plain = (0, dims + 1, *spatial)
        axes = term.shape.axes
        y = lax.conv_general_dilated(
            x,
            kernel,
            window_strides=term.shape.strides,
            padding=[(axis.low, axis.high) for axis in axes],
            lhs_dilation=term.shape.input_dilation,
            rhs_dilation=[axis.dilation for axis in axes],
            dimension_numbers=lax.ConvDimensionNumbers(
                lhs_spec=(layout.batch[0], layout.channel, *layout.space) if direct else plain,
                rhs_spec=(dims + 1, dims, *range(dims)),
                out_spec=(out.batch[0], out.channel, *out.space) if direct else plain,
            ),
            feature_group_count=term.shape.groups,
            precision=numbers.precision,
            preferred_element_type=numbers.accumulate,
        )
        return y if direct else self._from_standard(y)

    def _arrange(self, y: jax.Array, layout: Layout) -> jax.Array:
        """From the axes of a base to those of the root; sizes are already the root's."""
        if layout == self.layout and y.ndim == len(self.root.shape) and len(layout.batch) == 1:
            return y
        if layout == self.layout and y.shape == self.root.shape:
            return y
        return self._from_standard(_standard(y, layout))

    def _from_standard(self, y: jax.Array) -> jax.Array:
        layout, root = self.layout, self.root
        order = (*layout.batch, *layout.space, layout.channel)
        y = y.reshape(tuple(root.shape[axis] for axis in order))
        return jnp.transpose(y, [order.index(axis) for axis in range(len(order))])


def _standard(x: jax.Array, layout: Layout) -> jax.Array:
    """(one batch axis, spatial..., channels)."""
    order = (*layout.batch, *layout.space, layout.channel)
    x = jnp.transpose(x, order)
    rest = x.shape[len(layout.batch) :]
    count = 1
    for size in x.shape[: len(layout.batch)]:
        count = count * size
    return x.reshape((count, *rest))


def _move(x: jax.Array, term: Term, sizes: Sequence[int]) -> jax.Array:
    """Pad, crop and take every so many: a map with one tap of one per channel."""
    config = [(0, 0, 0)] * x.ndim
    strides = [1] * x.ndim
    for place, axis, size in zip(term.layout.space, term.shape.axes, sizes, strict=True):
        wanted = (size - 1) * axis.stride + 1
        high = wanted - axis.low - axis.dilated(x.shape[place])
        config[place] = (axis.low, high, axis.input_dilation - 1)
        strides[place] = axis.stride
    if any(any(entry) for entry in config):
        x = lax.pad(x, jnp.zeros((), x.dtype), config)
    if any(stride != 1 for stride in strides):
        x = lax.slice(x, [0] * x.ndim, x.shape, strides)
    return x


def _along(vector: jax.Array, axis: int, rank: int) -> jax.Array:
    shape = [1] * rank
    shape[axis] = -1
    return vector.reshape(shape)
