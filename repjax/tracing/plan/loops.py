"""Scans over stacked blocks: the body is fused like a program, its parameters stay stacked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax

from repjax.jaxprs import Scan
from repjax.tracing.plan.instructions import Environment, array_of
from repjax.tracing.plan.parameters import Parameter, Path, Variable
from repjax.tracing.program.program import Operation, Program, read
from repjax.tracing.program.weights import Weight, Weights, evaluate, signature

Run = Callable[[dict[Path, Any], Sequence[Any]], list[Any]]


@dataclasses.dataclass(frozen=True)
class ScanBody:
    """The body of a scan as a program of its own.

    Args:
        operation: the scan.
        scan: its parts.
        program: the body; its variables are the operands that are weights.
        places: positions of those operands.
        variables: what they are, inside.
    """

    operation: Operation
    scan: Scan
    program: Program
    places: tuple[int, ...]
    variables: tuple[Variable, ...]

    def is_slice(self, index: int) -> bool:
        """Whether a variable of the body is another one on every turn."""
        return self.places[index] >= self.scan.constants + self.scan.carries

    def outside(self, parameter: Parameter, weights: Weights) -> Weight:
        """A parameter of the body as a weight of the program around it, stacked if need be."""
        inner = parameter.weight
        indices = sorted(inner.variables)
        operands = [self.operation.operands[self.places[index]] for index in indices]
        nodes = [operand for operand in operands if isinstance(operand, Weight)]
        if inner.name == "variable":
            return nodes[0]
        axes = [0 if self.is_slice(index) else None for index in indices]

        def one(*values: Any) -> Any:
            return evaluate([inner], dict(zip(indices, values, strict=True)))[inner]

        def run(*values: Any) -> Any:
            return jax.vmap(one, in_axes=axes)(*values) if 0 in axes else one(*values)

        shape = inner.shape
        if shape is not None and 0 in axes:
            shape = (self.scan.length, *shape)
        return weights.node(
            *("scan", nodes, run),
            static=(signature(inner, {}), tuple(axes)),
            shape=shape,
            dtype=parameter.dtype,
        )


@dataclasses.dataclass(frozen=True)
class Loop:
    """A scan whose body has a plan of its own; an instruction.

    Args:
        body: the body.
        run_body: the fused body.
        leaves: for every parameter of the body, its weight outside.
        stacked: those that differ from turn to turn.
    """

    body: ScanBody
    run_body: Run
    leaves: dict[Path, Weight]
    stacked: frozenset[Path]

    def run(self, known: Environment) -> None:
        """Run the loop on stacked fused parameters and store its results."""
        operands, scan = self.body.operation.operands, self.body.scan
        start = scan.constants + scan.carries
        values = {
            place: array_of(known, operand)
            for place, operand in enumerate(operands)
            if place not in self.body.places
        }
        params = {path: known[weight] for path, weight in self.leaves.items()}
        stacked = {path: params[path] for path in params if path in self.stacked}
        sliced = {place: value for place, value in values.items() if place >= start}
        fixed = {place: value for place, value in values.items() if place < scan.constants}

        def turn(carry: list[Any], slices: Any) -> tuple[list[Any], list[Any]]:
            part, inputs = slices
            everything = {**fixed, **inputs, **dict(enumerate(carry, scan.constants))}
            data = [everything[place] for place in sorted(everything)]
            results = self.run_body({**params, **part}, data)
            return results[: scan.carries], results[scan.carries :]

        carry = [values[place] for place in range(scan.constants, start)]
        carry, outputs = jax.lax.scan(
            *(turn, carry, (stacked, sliced), scan.length),
            reverse=scan.reverse,
            unroll=scan.unroll,
        )
        known.update(zip(self.body.operation.results, [*carry, *outputs], strict=True))


def read_body(operation: Operation, path_of: Callable[[Weight], Path]) -> ScanBody | None:
    """The body of a scan that reads weights, None if it reads none."""
    scan = Scan.of(operation.equation)
    carried = range(scan.constants, scan.constants + scan.carries)
    places = tuple(
        place
        for place, operand in enumerate(operation.operands)
        if isinstance(operand, Weight) and operand.variables and place not in carried
    )
    if not places:
        return None
    inside = Weights()
    inputs: list[Weight | None] = [None] * len(operation.operands)
    variables = []
    for index, place in enumerate(places):
        operand = operation.operands[place]
        assert isinstance(operand, Weight)
        shape = operand.shape or ()
        shape = shape if place < carried.stop else shape[1:]
        inputs[place] = inside.variable(index, shape, operand.dtype)
        variables.append(Variable(path_of(operand), shape, operand.dtype))
    return ScanBody(operation, scan, read(scan.body, inputs, inside), places, tuple(variables))
