"""Which operations of a program are linear: the end of the second chapter."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from repjax.primitives import Kind
from repjax.tracing.linear.affine import Affine
from repjax.tracing.linear.forms import Apart, State
from repjax.tracing.linear.roles import Layout, Relation, Roles
from repjax.tracing.linear.rules import RULES, Rule
from repjax.tracing.linear.rules.elementwise import hints
from repjax.tracing.linear.vectors import uniform_number
from repjax.tracing.program.program import Operation, Program, Value
from repjax.tracing.program.weights import Weight
from repjax.tracing.surprises import kept_as_written

_HINTED = 1
"""The rank after which weights that vary along one axis say which axis is channels."""


@dataclasses.dataclass(frozen=True)
class Linear:
    """What is known of a program once its axes are understood.

    Args:
        values: the results of linear operations.
        affine: the verbs of forms, and the layout of every value.
        reasons: why other operations are not linear.
    """

    values: frozenset[Value]
    affine: Affine
    reasons: dict[Operation, str]

    def forms(self, operation: Operation, known: Callable[[Value], State | None]) -> list[State]:
        """The forms of an operation's results, where some operands have forms and some do not.

        Raises:
            Apart: there are none.
        """
        if any(weight.sized for weight in operation.weights):
            raise Apart("a weight that depends on a symbolic size")
        operands = [
            one if isinstance(one, Weight) else known(one) or self.affine.of_value(one)
            for one in operation.operands
        ]
        try:
            found = RULES[operation.name].form(operation, operands, self.affine)
        except Apart:
            raise
        except Exception as error:
            raise Apart(kept_as_written(f"the operation {operation.name}", error)) from error
        return list(found) if isinstance(found, Sequence) else [found]


def nothing_linear(program: Program) -> Linear:
    """As if no operation were linear."""
    return Linear(frozenset(), Affine(program.weights, Roles().layout), {})


def find_linear(program: Program) -> Linear:
    """Relate the axes of a program and find its linear operations."""
    roles, related, reasons = _relate(program)
    layouts: dict[Value, Layout] = {}

    def layout(value: Value) -> Layout:
        if value not in layouts:
            layouts[value] = roles.layout(value)
        return layouts[value]

    affine = Affine(program.weights, layout)
    linear = Linear(frozenset(), affine, reasons)
    values: set[Value] = set()
    for operation in program.operations:
        if operation not in related:
            continue
        problem = _not_countable(operation, layout) or _joins_non_linear(operation, values)
        try:
            if problem is None:
                linear.forms(operation, lambda value: None)
        except Apart as apart:
            problem = apart.reason
        if problem is None:
            values.update(operation.results)
        else:
            reasons[operation] = problem
    return Linear(frozenset(values), affine, reasons)


def _relate(program: Program) -> tuple[Roles, set[Operation], dict[Operation, str]]:
    roles = Roles()
    related: set[Operation] = set()
    reasons: dict[Operation, str] = {}
    turns = [
        (RULES[one.name].turn, one)
        for one in program.operations
        if one.name in RULES and not one.equation.effects and one.data
    ]
    for turn in sorted({turn for turn, _ in turns}):
        waiting = [one for at, one in turns if at == turn]
        while waiting:
            left = [one for one in waiting if not _related(one, roles, related, reasons)]
            if len(left) == len(waiting):
                operation = _likeliest(left)
                if not _assume(operation, roles):
                    reasons[operation] = "nothing says what its axes are"
                    left.remove(operation)
            waiting = left
        if turn == _HINTED:
            _follow_hints(program, related, roles)
    for operation in program.operations:
        for value in (*operation.data, *operation.results) if operation in related else ():
            roles.assume_channel(value)
    return roles, related, reasons


def _related(
    operation: Operation, roles: Roles, related: set[Operation], reasons: dict[Operation, str]
) -> bool:
    """Relate the axes of an operation; False if more must be known first."""
    rule = RULES[operation.name]
    relation = _relation(rule, operation, roles)
    if relation is None:
        return False
    if isinstance(relation, str):
        reasons[operation] = relation
    elif roles.relate(relation):
        related.add(operation)
    elif rule.rearranges:
        roles.relate(Relation(relation.same))
        related.add(operation)
    else:
        reasons[operation] = "its axes are not those of the operations around it"
    return True


def _likeliest(waiting: Sequence[Operation]) -> Operation:
    """Of operations whose axes nothing tells of, the one to guess first: a stack."""
    return next((one for one in waiting if one.name == "concatenate"), waiting[0])


def _assume(operation: Operation, roles: Roles) -> bool:
    """Give an operation's axes their likely role; False if that contradicts what is known."""
    assumed = RULES[operation.name].assumed
    if assumed is None:
        return False
    axes, role = assumed
    unknown = [axis for axis in axes(operation) if roles.role(axis) is None]
    given = [roles.relate(Relation(roles=[(axis, role)])) for axis in unknown]
    return bool(given) and all(given)


def _relation(rule: Rule, operation: Operation, roles: Roles) -> Relation | str | None:
    try:
        return rule.relate(operation, roles)
    except Exception as error:
        return kept_as_written(f"the operation {operation.name}", error)


def _follow_hints(program: Program, related: set[Operation], roles: Roles) -> None:
    for operation in program.operations:
        for hint in hints(operation, roles) if operation in related else ():
            roles.relate(hint)


def _not_countable(operation: Operation, layout: Callable[[Value], Layout]) -> str | None:
    for value in (*operation.data, *operation.results):
        found = layout(value)
        if found.channel < 0:
            return "it has no channels"
        if not isinstance(value.shape[found.channel], int):
            return "a symbolic number of channels"
        if any(isinstance(size, int) and size < 1 for size in value.shape):
            return "an empty array"
    return None


def sum_before(value: Value) -> Operation | None:
    """The sum over axes or windows that a value is the result of, as it stands or reshaped."""
    producer = value.producer
    while producer is not None and producer.kind is Kind.FREE:
        producer = producer.data[0].producer
    sums = {"reduce_sum", "reduce_window_sum"}
    return producer if producer is not None and producer.name in sums else None


def _joins_non_linear(operation: Operation, linear: set[Value]) -> str | None:
    """A constant scale or shift of a non-linear value belongs to that non-linear function.

    Compilers know the whole pattern of an activation; taken apart it is several passes. The
    1/N of a sum that is not linear stays with that sum.
    """
    if operation.name not in {"mul", "div", "add", "sub"} or len(operation.data) != 1:
        return None
    (data,), (weight,) = operation.data, operation.weights
    number = uniform_number(weight)
    if number is None or (number == 1.0 and operation.name in {"mul", "div"}):
        return None
    producer = data.producer
    total = sum_before(data)
    if total is not None and total.result not in linear:
        return "a constant that belongs to the sum before it"
    alone = producer is not None and data not in linear and len(data.consumers) == 1
    if alone and not data.is_output and producer is not None and producer.name == "mul":
        return "a constant that belongs to the non-linear function before it"
    return None
