"""A group: linear values that are computed together, and what is asked of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from repjax.tracing.linear.forms import Base, State
from repjax.tracing.plan import cost as costs
from repjax.tracing.plan.outcome import MULTIPLIES, Outcome
from repjax.tracing.program.program import Operation, Value
from repjax.tracing.program.weights import Weight, reachable, signature


@dataclasses.dataclass(frozen=True)
class Stuck:
    """Where a group cannot be one: the values to cut, and why."""

    values: tuple[Value, ...]
    reason: str


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """Values that lead to one root, the last of them.

    Args:
        values: in the order of the program.
        outcome: how the root is computed at once; None where there is no way, or no need.
        before: the kernels as written.
        after: the kernels as they will be.
        merged: whether the outcome is used.
        price: of `after`.
        prices: as written, and of the outcome.
        stuck: why there is no outcome.
        notes: operations whose sums keep maps of one base apart, with the reasons.
        given: forms of values it reads, in terms of what is still computed.
        ways: all outcomes that there are.
    """

    values: tuple[Value, ...]
    outcome: Outcome | None
    before: tuple[costs.Kernel, ...]
    after: tuple[costs.Kernel, ...]
    merged: bool
    price: float
    prices: tuple[float, float] | None = None
    stuck: Stuck | None = None
    notes: tuple[tuple[Operation, str], ...] = ()
    given: Mapping[Value, State] = dataclasses.field(default_factory=dict)
    ways: tuple[Outcome, ...] = ()

    @property
    def root(self) -> Value:
        """The value the group computes."""
        return self.values[-1]

    @property
    def bias_maps(self) -> int:
        """How many bias maps its outcome has."""
        parts = () if self.outcome is None else self.outcome.parts
        return sum(len(part.bias_maps) for part in parts)

    @property
    def inputs(self) -> list[Base]:
        """What the convolutions and products of its outcome read, one by one."""
        parts = () if self.outcome is None else self.outcome.parts
        return [term.base for part in parts for term in part.terms if term.kind in MULTIPLIES]

    @property
    def operations(self) -> list[Operation]:
        """The operations that make its values, in order."""
        producers = [value.producer for value in self.values]
        return list(dict.fromkeys(one for one in producers if one is not None))


def kernel_signatures(outcome: Outcome | None) -> tuple[str, ...]:
    """Signatures of the kernels and scales of an outcome: equal where the numbers are."""
    known: dict[Weight, str] = {}
    terms = [] if outcome is None else [term for part in outcome.parts for term in part.terms]
    return tuple(signature(term.map.scale or term.map.kernel, known) for term in terms)


def numbers_stored(outcome: Outcome) -> int:
    """How many numbers its kernels and scales have."""
    kinds = MULTIPLIES | {"scale"}
    kernels = {
        term.map.kernel for part in outcome.parts for term in part.terms if term.kind in kinds
    }
    return sum(math.prod(kernel.shape or ()) for kernel in kernels)


def numbers_read(group: Group) -> int:
    """How many numbers the variables and constants have that its operations read."""
    weights = [weight for one in group.operations for weight in one.weights]
    leaves = [one for one in reachable(weights) if not one.operands and not one.sized]
    return sum(math.prod(leaf.shape or ()) for leaf in leaves)


def inputs_differ(group: Group, apart: int) -> bool:
    """Whether its `apart` convolutions and products stay as many, for each reads another value."""
    return len(group.inputs) == apart > 1 and len(set(group.inputs)) == apart


def is_best(group: Group) -> bool:
    """Whether no division can help: one kernel, no dearer than the dearest one written."""
    kernels = [one for one in group.after if one.kind in MULTIPLIES]
    if not group.merged or len(kernels) > 1 or any(one.numbers for one in group.after):
        return False
    dearest = max(kernel.macs for kernel in group.before)
    return max((kernel.macs for kernel in group.after), default=0) <= dearest
