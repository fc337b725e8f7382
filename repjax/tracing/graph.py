"""A program as a graph: operations on data, with weights as expressions on the side.

Calls are inlined; what depends on variables and constants only becomes an expression
(`Node`), everything else a `Value` made by an `Operation`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from repjax.tracing import programs
from repjax.tracing.expressions import Expressions, Node, describe


@dataclasses.dataclass(eq=False)
class Value:
    """A run-time value: an input of the program or a result of an operation."""

    number: int
    shape: tuple[Any, ...]
    dtype: Any
    producer: Operation | None = None
    consumers: list[Operation] = dataclasses.field(default_factory=list)
    is_output: bool = False

    def __repr__(self) -> str:
        return f"%{self.number}{self.shape}"


@dataclasses.dataclass(eq=False)
class Operation:
    """One equation on data; operands are values or expressions."""

    number: int
    name: str
    equation: Any
    operands: list[Value | Node]
    results: list[Value]

    @property
    def params(self) -> dict[str, Any]:
        """Parameters of the equation."""
        return dict(self.equation.params)

    @property
    def result(self) -> Value:
        """The result of an operation that has one."""
        return self.results[0]

    @property
    def data(self) -> list[Value]:
        """The operands that are data."""
        return [operand for operand in self.operands if isinstance(operand, Value)]

    @property
    def path(self) -> str:
        """Module path of the operation, or its source line."""
        path = programs.module_path(self.equation)
        return path or programs.source_line(self.equation)

    def __repr__(self) -> str:
        return f"{self.results} = {self.name} {self.operands}"


@dataclasses.dataclass(eq=False)
class Graph:
    """The whole program; operations in order, those without use removed."""

    expressions: Expressions
    inputs: list[Value]
    operations: list[Operation]
    outputs: list[Value | Node]

    @property
    def signature(self) -> tuple[str, ...]:
        """Names of the operations in order: two traces of one program agree in it."""
        return tuple(operation.name for operation in self.operations)


def read(jaxpr: Any, weights: Sequence[Node | None], expressions: Expressions) -> Graph:
    """Read a program.

    Args:
        jaxpr: the traced program.
        weights: per flat input the expression it stands for, or None for data.
        expressions: where new expressions go.
    """
    operations: list[Operation] = []
    known: dict[Any, Operation] = {}
    numbers = iter(range(1 << 60))

    def value(aval: Any, producer: Operation | None = None) -> Value:
        shape, dtype = getattr(aval, "shape", ()), getattr(aval, "dtype", None)
        return Value(next(numbers), tuple(shape), dtype, producer)

    def as_node(operand: Any) -> Any:
        return operand if isinstance(operand, Value | Node) else expressions.constant(operand)

    def step(equation: Any, operands: list[Any]) -> list[Any]:
        read_operands = [as_node(operand) for operand in operands]
        data = any(isinstance(operand, Value) for operand in read_operands)
        if not data and not equation.effects:
            return list(expressions.equation(equation, read_operands))
        name = equation.primitive.name
        key = (describe(equation), *(id(operand) for operand in read_operands))
        if key in known and not equation.effects:
            return known[key].results
        operation = Operation(len(operations), name, equation, read_operands, [])
        operation.results = [value(atom.aval, operation) for atom in equation.outvars]
        operations.append(operation)
        known[key] = operation
        return operation.results

    inputs: list[Value] = []
    operands: list[Any] = []
    for atom, weight in zip(programs.body_of(jaxpr).inputs, weights, strict=True):
        if weight is None:
            inputs.append(value(atom.aval))
            operands.append(inputs[-1])
        else:
            operands.append(weight)
    outputs = [as_node(output) for output in programs.interpret(jaxpr, operands, step)]
    graph = Graph(expressions, inputs, _used(operations, outputs), outputs)
    for operation in graph.operations:
        for operand in dict.fromkeys(operation.data):
            operand.consumers.append(operation)
    for output in outputs:
        if isinstance(output, Value):
            output.is_output = True
    return graph


def _used(operations: list[Operation], outputs: Sequence[Value | Node]) -> list[Operation]:
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
