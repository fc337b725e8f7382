"""Groups: linear values that are computed together, and what that costs either way."""

from __future__ import annotations

import dataclasses

from repjax.primitives import Kind
from repjax.tracing.linear.find import Linear
from repjax.tracing.linear.forms import Apart, Form, State
from repjax.tracing.plan import cost as costs
from repjax.tracing.plan.outcome import Outcome, outcomes
from repjax.tracing.program.program import Operation, Value


@dataclasses.dataclass(frozen=True)
class Stuck:
    """Where a group cannot be one: the values to cut, and why."""

    values: tuple[Value, ...]
    reason: str


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """Values that lead to one root, the last of them.

    Attributes:
        values: in the order of the program.
        outcome: how the root is computed at once; None where there is no way.
        before: the kernels as written.
        after: the kernels as they will be.
        merged: whether the outcome is used.
        price: of `after`.
        prices: as written, and of the outcome.
        stuck: why there is no outcome.
        notes: operations whose sums keep maps of one base apart, with the reasons.
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

    @property
    def root(self) -> Value:
        """The value the group computes."""
        return self.values[-1]

    @property
    def operations(self) -> list[Operation]:
        """The operations that make its values, in order."""
        producers = [value.producer for value in self.values]
        return list(dict.fromkeys(one for one in producers if one is not None))


class Groups:
    """Evaluates groups; what was worked out once, also inside another group, is remembered."""

    def __init__(self, linear: Linear, cost: costs.Cost) -> None:
        self.linear, self.cost = linear, cost
        self._groups: dict[tuple[Value, ...], Group] = {}
        self._forms: dict[tuple[object, ...], tuple[list[State], Apart | None]] = {}

    def group(self, values: tuple[Value, ...]) -> Group:
        """The group of these values."""
        if values not in self._groups:
            self._groups[values] = self._evaluate(values)
        return self._groups[values]

    def _evaluate(self, values: tuple[Value, ...]) -> Group:
        root, affine = values[-1], self.linear.affine
        before = tuple(one for value in values for one in costs.written(value, affine))
        written = costs.price(before, self.cost)
        forms: dict[Value, State] = {}
        notes: list[tuple[Operation, str]] = []
        for value in values:
            operation = value.producer
            assert operation is not None
            states, apart = self._forms_of(operation, forms)
            if apart is not None:
                stuck = self._stuck(values, operation, apart)
                return Group(values, None, before, before, False, written, None, stuck)
            forms[value] = state = states[operation.results.index(value)]
            if isinstance(state, Form):
                notes += [(operation, note) for note in state.notes]
        spatial = any(
            value.producer is not None and value.producer.name == "conv_general_dilated"
            for value in values
        )
        try:
            found = outcomes(forms[root], root, affine, spatial=spatial)
        except Apart as apart:
            assert root.producer is not None
            stuck = self._stuck(values, root.producer, apart)
            return Group(values, None, before, before, False, written, None, stuck)
        best: Group | None = None
        for outcome in found:
            after = tuple(costs.fused(outcome, root, affine))
            price = costs.price(after, self.cost)
            if best is None or price < best.price:
                both = written, price
                best = Group(values, outcome, before, after, True, price, both, None, tuple(notes))
        assert best is not None
        if best.price < written and self._is_allowed(best):
            return best
        return dataclasses.replace(best, after=before, merged=False, price=written)

    def as_decided(self, group: Group, merged: bool) -> Group:
        """The group as it was decided elsewhere, whatever it costs here."""
        if group.merged == merged:
            return group
        after = group.before
        if merged:
            assert group.outcome is not None
            after = tuple(costs.fused(group.outcome, group.root, self.linear.affine))
        price = costs.price(after, self.cost)
        return dataclasses.replace(group, merged=merged, after=after, price=price)

    def _forms_of(
        self, operation: Operation, forms: dict[Value, State]
    ) -> tuple[list[State], Apart | None]:
        key = (operation, *(id(forms.get(value)) for value in operation.data))
        if key not in self._forms:
            try:
                self._forms[key] = self.linear.forms(operation, forms.get), None
            except Apart as apart:
                self._forms[key] = [], apart
        return self._forms[key]

    def _stuck(
        self, values: tuple[Value, ...], operation: Operation, apart: Apart
    ) -> Stuck | None:
        inside = set(values)
        suspects = operation.data if apart.value is None else [apart.value]
        blocking = [value for value in suspects if value in inside and value is not values[-1]]
        if not blocking and not set(operation.results) & {values[-1]}:
            blocking = [value for value in operation.results if value in inside]
        return Stuck(tuple(blocking), apart.reason) if blocking else None

    def _is_allowed(self, group: Group) -> bool:
        """Never more kernels or multiply-accumulates, and nothing done to constants alone."""
        if not costs.not_more(group.after, group.before):
            return False
        if not callable(self.cost):
            macs = [sum(one.macs for one in part) for part in (group.after, group.before)]
            if macs[0] > macs[1]:
                return False
        assert group.outcome is not None
        heavy = {Kind.KERNEL, Kind.WINDOW}
        known = any(weight.variables for one in group.operations for weight in one.weights)
        if known or any(one.kind in heavy for one in group.operations):
            return True
        return not any(kernel.kind in {"scale", "add"} for kernel in group.after)


def is_best(group: Group) -> bool:
    """Whether no division can help: one kernel, no dearer than the dearest one written."""
    kernels = [one for one in group.after if one.kind in {"convolution", "product"}]
    if not group.merged or len(kernels) > 1 or any(one.numbers for one in group.after):
        return False
    dearest = max(kernel.macs for kernel in group.before)
    return max((kernel.macs for kernel in group.after), default=0) <= dearest
