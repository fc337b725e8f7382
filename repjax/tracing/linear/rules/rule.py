"""What a rule is: two short functions that say what an operation does with affine forms."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from repjax.tracing.linear.affine import Affine
from repjax.tracing.linear.forms import State
from repjax.tracing.linear.roles import ArrayAxis, Relation, Roles
from repjax.tracing.program.program import Operation, Value
from repjax.tracing.program.weights import Weight, is_float

Operand = State | Weight
Relate = Callable[[Operation, Roles], Relation | str | None]
MakeForm = Callable[[Operation, Sequence[Operand], Affine], State | Sequence[State]]


@dataclasses.dataclass(frozen=True)
class Rule:
    """How a primitive is linear.

    Args:
        relate: which axes correspond and what they are; a text says why it is not linear;
            None asks to come back when more is known.
        form: the form of the result (forms, where there are several results) from the forms
            of the operands; raises `Apart` with the reason where there is none.
        turn: when the axes are related, small numbers first: what knows most comes first.
        rearranges: whether it only gives elements other places, so that it has a form even
            where its axes do not correspond.
        assumed: the role of the axes it works along, where nothing else says one.
    """

    relate: Relate
    form: MakeForm
    turn: int
    rearranges: bool = False
    assumed: tuple[Callable[[Operation], Sequence[ArrayAxis]], str] | None = None


def same_axes(one: Value, two: Value) -> list[tuple[ArrayAxis, ArrayAxis]]:
    """Every axis of one value corresponds to the same axis of the other."""
    return [(ArrayAxis(one, index), ArrayAxis(two, index)) for index in range(len(one.shape))]


def all_float(operation: Operation) -> bool:
    """Whether everything the operation reads and writes counts as real numbers."""
    return all(is_float(one.dtype) for one in [*operation.operands, *operation.results])


def state_of(operand: Operand) -> State:
    """An operand that is known to be data."""
    assert not isinstance(operand, Weight)
    return operand


NOT_REAL = "its numbers are no floats of 16 bits or more"
