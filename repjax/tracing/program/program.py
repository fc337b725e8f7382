"""A program as operations on data: calls inlined, equal operations shared, weights on the side.

What depends on variables and constants only becomes a `Weight`; everything else is a `Value`
made by an `Operation`. What runs Python code on the host or has effects stays an operation,
is never shared and happens as often as before.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from repjax import jaxprs, primitives
from repjax.primitives import Kind
from repjax.tracing.program.equality import meaning
from repjax.tracing.program.weights import Weight, Weights


@dataclasses.dataclass(eq=False)
class Value:
    """A run-time value: an input of the program or a result of an operation."""

    number: int
    shape: tuple[Any, ...]
    dtype: Any
    producer: Operation | None = None
    consumers: list[Operation] = dataclasses.field(default_factory=list)
    is_output: bool = False

    @property
    def is_used(self) -> bool:
        """Whether anything reads it."""
        return self.is_output or bool(self.consumers)

    def __repr__(self) -> str:
        return f"%{self.number}{self.shape}"


@dataclasses.dataclass(eq=False)
class Operation:
    """One equation on data; operands are values or weights, results are values.

    Args:
        scope: the named scopes around it, as in ``encoder/block0``; or its source line.
    """

    number: int
    name: str
    equation: jaxprs.Equation
    operands: list[Value | Weight]
    results: list[Value]
    scope: str

    @functools.cached_property
    def params(self) -> dict[str, Any]:
        """Parameters of the equation; integers of NumPy among them as plain ones."""
        return {name: _plain(value) for name, value in self.equation.params.items()}

    @property
    def result(self) -> Value:
        """The result of an operation that has one."""
        return self.results[0]

    @property
    def data(self) -> list[Value]:
        """The operands that are data."""
        return [operand for operand in self.operands if isinstance(operand, Value)]

    @property
    def weights(self) -> list[Weight]:
        """The operands that are weights."""
        return [operand for operand in self.operands if isinstance(operand, Weight)]

    @property
    def kind(self) -> Kind:
        """What the operation does, by the table of primitives."""
        return primitives.look_up(self.name).kind

    def __repr__(self) -> str:
        return f"{self.results} = {self.name} {self.operands}"


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """The whole program; operations in order, those without use removed."""

    weights: Weights
    inputs: list[Value]
    operations: list[Operation]
    outputs: list[Value | Weight]

    @property
    def outline(self) -> tuple[Any, ...]:
        """How operations follow from each other: two traces of one program agree in it."""
        return tuple(
            (one.name, tuple(value.number for value in one.data), len(one.results))
            for one in self.operations
        )


def read(jaxpr: jaxprs.Jaxpr, variables: Sequence[Weight | None], weights: Weights) -> Program:
    """Read a program.

    Args:
        jaxpr: the traced program.
        variables: per flat input the weight it stands for, or None for data.
        weights: where new weights go.
    """
    reader = _Reader(weights, [], {}, [])
    inputs: list[Value] = []
    operands: list[Any] = []
    for atom, weight in zip(jaxprs.body_of(jaxpr).inputs, variables, strict=True):
        if weight is None:
            inputs.append(reader.value(atom.aval))
        operands.append(inputs[-1] if weight is None else weight)
    outputs = [reader.operand(one) for one in jaxprs.interpret(jaxpr, operands, reader.step)]
    operations = _used(reader.operations, outputs)
    for operation in operations:
        for operand in dict.fromkeys(operation.data):
            operand.consumers.append(operation)
    for output in outputs:
        if isinstance(output, Value):
            output.is_output = True
    return Program(weights, inputs, operations, outputs)


@dataclasses.dataclass(frozen=True)
class _Reader:
    weights: Weights
    operations: list[Operation]
    known: dict[Hashable, Operation]
    values: list[Value]

    def value(self, aval: Any, producer: Operation | None = None) -> Value:
        shape, dtype = getattr(aval, "shape", ()), getattr(aval, "dtype", None)
        self.values.append(Value(len(self.values), tuple(shape), dtype, producer))
        return self.values[-1]

    def operand(self, operand: Any) -> Value | Weight:
        known = isinstance(operand, Value | Weight)
        return operand if known else self.weights.constant(operand)

    def step(self, equation: jaxprs.Equation, operands: list[Any], scope: str) -> list[Any]:
        read = [self.operand(operand) for operand in operands]
        name = jaxprs.name_of(equation)
        once = bool(equation.effects) or primitives.look_up(name).kind is Kind.CALLBACK
        if not once and not any(isinstance(operand, Value) for operand in read):
            return list(
                self.weights.of_equation(equation, [w for w in read if isinstance(w, Weight)])
            )
        key = None if once else (meaning(equation), *map(id, read))
        if key is not None and key in self.known:
            return list(self.known[key].results)
        scope = scope or jaxprs.source_line(equation)
        operation = Operation(len(self.operations), name, equation, read, [], scope)
        operation.results += [self.value(atom.aval, operation) for atom in equation.outvars]
        self.operations.append(operation)
        if key is not None:
            self.known[key] = operation
        return list(operation.results)


def _plain(value: Any) -> Any:
    if isinstance(value, np.integer):
        return int(value)
    return tuple(map(_plain, value)) if type(value) in {tuple, list} else value


def _used(operations: list[Operation], outputs: Sequence[Value | Weight]) -> list[Operation]:
    wanted = {output for output in outputs if isinstance(output, Value)}
    kept = []
    for operation in reversed(operations):
        if operation.equation.effects or any(result in wanted for result in operation.results):
            kept.append(operation)
            wanted.update(operation.data)
    kept.reverse()
    for number, operation in enumerate(kept):
        operation.number = number
    return kept
