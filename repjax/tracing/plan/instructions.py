"""Instructions of a fused program: an operation as written, or a form computed at once."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from repjax import jaxprs
from repjax.algebra.arithmetic import written_out
from repjax.tracing.linear.affine import Affine
from repjax.tracing.linear.roles import Layout
from repjax.tracing.linear.vectors import uniform_number
from repjax.tracing.plan.arrays import along, averaged, placed, pooled, to_standard, viewed
from repjax.tracing.plan.outcome import MULTIPLIES, Outcome, Part, Term
from repjax.tracing.program.program import Operation, Value
from repjax.tracing.program.weights import Weight, as_traced

Environment = dict[Any, Any]
"""Arrays by value, weight or mean, while a plan runs."""


def array_of(known: Environment, operand: Value | Weight) -> Any:
    """The array of a value or a weight, in the type it was traced with."""
    array = known[operand]
    return as_traced(array, operand.dtype) if isinstance(operand, Weight) else array


@dataclasses.dataclass(frozen=True)
class Replay:
    """An operation as the program has it."""

    operation: Operation

    def run(self, known: Environment) -> None:
        """Evaluate it and store its results."""
        operands = [array_of(known, operand) for operand in self.operation.operands]
        results = jaxprs.bind(self.operation.equation, operands)
        known.update(zip(self.operation.results, results, strict=True))


@dataclasses.dataclass(frozen=True)
class Types:
    """In which types a merged form is computed."""

    compute: Any
    accumulate: Any
    precision: Any


@dataclasses.dataclass(frozen=True)
class Merged:
    """A group's outcome, run at once: stores the value of its root."""

    root: Value
    outcome: Outcome
    types: Types
    affine: Affine

    def run(self, known: Environment) -> None:
        """Evaluate it and store the value of the root."""
        outcome, affine = self.outcome, self.affine
        layout = affine.layout(outcome.value)
        parts = [self._part(part, known) for part in outcome.parts]
        y = parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=layout.channel)
        if outcome.view is not None:
            assert outcome.viewed is not None
            sizes = affine.layout(outcome.viewed).sizes(outcome.viewed)
            y = viewed(y, outcome.view, layout, sizes)
        for operation in outcome.operations:
            (y,) = jaxprs.bind(operation.equation, [y])
        known[self.root] = y.astype(self.root.dtype)

    def _part(self, part: Part, known: Environment) -> jax.Array:
        value, layout = self.outcome.value, self.affine.layout(self.outcome.value)
        shape = list(value.shape)
        shape[layout.channel] = part.features
        total = None
        for term in part.terms:
            y = self._term(term, known, tuple(shape))
            if term.kind == "negative":
                total = -y if total is None else total - y
            else:
                total = y if total is None else total + y
        added = self._added(part, known)
        if added is not None:
            total = added if total is None else total + added
        assert total is not None
        return total if part.terms else jnp.broadcast_to(total, shape)

    def _added(self, part: Part, known: Environment) -> jax.Array | None:
        """Bias, bias maps and image together: what does not depend on data."""
        value, layout = self.outcome.value, self.affine.layout(self.outcome.value)
        rank, accumulate = len(value.shape), self.types.accumulate
        total = None
        for ones, one in part.bias_maps:
            kernel = jnp.asarray(known[one.kernel])
            image = written_out(kernel, one.shape, ones.sizes)
            image = placed(image.astype(accumulate), layout, rank)
            total = image if total is None else total + image
        if part.image is not None:
            image = placed(jnp.asarray(known[part.image]).astype(accumulate), layout, rank)
            total = image if total is None else total + image
        if part.bias is not None:
            bias = jnp.asarray(known[part.bias]).astype(accumulate)
            bias = along(bias, layout.channel, rank)
            total = bias if total is None else total + bias
        return total

    def _term(self, term: Term, known: Environment, shape: tuple[Any, ...]) -> jax.Array:
        types = self.types
        x, layout = self._base(term, known)
        if term.window is not None:
            x = pooled(x.astype(types.accumulate), term.window, layout)
        if term.kind in MULTIPLIES:
            kernel = jnp.asarray(known[term.map.kernel]).astype(types.compute)
            kernel = kernel.reshape(term.map.shape.kernel_shape)
            y = self._contract(term, x.astype(types.compute), kernel, layout, shape)
            return y.astype(types.accumulate)
        x = x.astype(types.accumulate)
        if term.kind == "scale":
            assert term.map.scale is not None
            number = uniform_number(term.map.scale)
            if number is not None:
                x = x * jnp.asarray(number, x.dtype)
            else:
                scale = jnp.asarray(known[term.map.scale]).astype(types.accumulate)
                x = x * along(scale, layout.channel, x.ndim)
        elif term.kind == "view":
            own = self.affine.layout(self.outcome.value)
            sizes = [shape[axis] for axis in own.space]
            x = viewed(x, term.map, layout, sizes[: layout.dims])
        return self._arrange(x, layout, shape)

    def _base(self, term: Term, known: Environment) -> tuple[jax.Array, Layout]:
        base = term.base
        if isinstance(base, Value):
            return known[base], self.affine.layout(base)
        layout = self.affine.layout(base.value)
        left = [axis for axis in range(len(base.value.shape)) if axis not in base.axes]
        layout = Layout(
            tuple(left.index(axis) for axis in layout.batch),
            tuple(left.index(axis) for axis in layout.space if axis in left),
            left.index(layout.channel),
        )
        if base not in known:
            known[base] = averaged(known[base.value], base)
        return known[base], layout

    def _contract(
        self, term: Term, x: jax.Array, kernel: jax.Array, layout: Layout, shape: tuple[Any, ...]
    ) -> jax.Array:
        types, out = self.types, self.affine.layout(self.outcome.value)
        if term.kind == "product":
            y = lax.dot_general(
                x,
                kernel.reshape(kernel.shape[-2:]),
                (((layout.channel,), (0,)), ((), ())),
                precision=types.precision,
                preferred_element_type=types.accumulate,
            )
            return self._arrange(jnp.moveaxis(y, -1, layout.channel), layout, shape)
        dims = layout.dims
        direct = len(layout.batch) == len(out.batch) == 1 and dims == out.dims
        if not direct:
            x = to_standard(x, layout)
        spatial = tuple(range(1, dims + 1))
        plain = (0, dims + 1, *spatial)
        axes = term.map.shape.axes
        y = lax.conv_general_dilated(
            x,
            kernel,
            window_strides=term.map.shape.strides,
            padding=[(axis.low, axis.high) for axis in axes],
            lhs_dilation=term.map.shape.input_dilation,
            rhs_dilation=[axis.dilation for axis in axes],
            dimension_numbers=lax.ConvDimensionNumbers(
                lhs_spec=(layout.batch[0], layout.channel, *layout.space) if direct else plain,
                rhs_spec=(dims + 1, dims, *range(dims)),
                out_spec=(out.batch[0], out.channel, *out.space) if direct else plain,
            ),
            feature_group_count=term.map.shape.groups,
            precision=types.precision,
            preferred_element_type=types.accumulate,
        )
        return y if direct else self._from_standard(y, shape)

    def _arrange(self, y: jax.Array, layout: Layout, shape: tuple[Any, ...]) -> jax.Array:
        """From the axes of a base to those of the value; sizes are already the value's."""
        own = self.affine.layout(self.outcome.value)
        if layout == own and y.ndim == len(shape) and (y.shape == shape or len(own.batch) == 1):
            return y
        return self._from_standard(to_standard(y, layout), shape)

    def _from_standard(self, y: jax.Array, shape: tuple[Any, ...]) -> jax.Array:
        layout = self.affine.layout(self.outcome.value)
        order = (*layout.batch, *layout.space, layout.channel)
        y = y.reshape(tuple(shape[axis] for axis in order))
        return jnp.transpose(y, [order.index(axis) for axis in range(len(order))])
