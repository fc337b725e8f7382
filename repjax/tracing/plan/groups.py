"""Groups: linear values that are computed together, and what that costs either way."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from repjax.primitives import Kind
from repjax.tracing.linear.find import Linear
from repjax.tracing.linear.forms import Apart, Form, State
from repjax.tracing.linear.vectors import uniform_number
from repjax.tracing.plan import cost as costs
from repjax.tracing.plan.outcome import Outcome, outcomes, without_idle_maps
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
        outcome: how the root is computed at once; None where there is no way, or no need.
        before: the kernels as written.
        after: the kernels as they will be.
        merged: whether the outcome is used.
        price: of `after`.
        prices: as written, and of the outcome.
        stuck: why there is no outcome.
        notes: operations whose sums keep maps of one base apart, with the reasons.
        given: forms of values it reads that are kept without their constants.
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
            self._groups[values] = self._evaluate(values, {})
        return self._groups[values]

    def with_given(self, group: Group, given: dict[Value, State]) -> Group | None:
        """The group where values that it reads are kept without constants; None if it cannot.

        Args:
            group: the group.
            given: the forms of those values, in terms of what is kept.
        """
        given = {**group.given, **given}
        found = self._evaluate(group.values, given)
        if found.outcome is None or not self._is_allowed(found):
            return None
        return dataclasses.replace(self.as_decided(found, True), given=given)

    def without_constants(self, group: Group) -> Group | None:
        """The group whose root is kept without what is added to it last."""
        assert group.outcome is not None
        (part,) = group.outcome.parts
        bare = dataclasses.replace(part, bias=None, bias_maps=(), image=None)
        outcome = dataclasses.replace(group.outcome, parts=(bare,))
        found = dataclasses.replace(group, outcome=outcome, merged=False)
        found = self.as_decided(found, True)
        return found if self._is_allowed(found) else None

    def with_fewer_bias_maps(self, group: Group, count: int) -> Group:
        """The group with biases for those bias maps that meet no border at this size."""
        if group.outcome is None or group.bias_maps <= count:
            return group
        affine = self.linear.affine
        parts = tuple(without_idle_maps(part, affine) for part in group.outcome.parts)
        outcome = dataclasses.replace(group.outcome, parts=parts)
        return dataclasses.replace(group, outcome=outcome)

    def not_computed(self, group: Group) -> Group:
        """The group where nobody reads the root any more."""
        return dataclasses.replace(group, outcome=None, after=(), merged=True, price=0.0)

    def _evaluate(self, values: tuple[Value, ...], given: dict[Value, State]) -> Group:
        root, affine = values[-1], self.linear.affine
        before = tuple(one for value in values for one in costs.written(value, affine))
        written = costs.price(before, self.cost)
        forms: dict[Value, State] = dict(given)
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
        if group.merged == merged or group.outcome is None:
            return group
        after = group.before
        if merged:
            after = tuple(costs.fused(group.outcome, group.root, self.linear.affine))
        price = costs.price(after, self.cost)
        return dataclasses.replace(group, merged=merged, after=after, price=price)

    def _forms_of(
        self, operation: Operation, forms: dict[Value, State]
    ) -> tuple[list[State], Apart | None]:
        key = (operation, *(id(forms.get(value)) for value in operation.data))
        if _ends_a_mean(operation, forms):
            return [], Apart("a mean keeps its own 1/N")
        if key not in self._forms:
            try:
                self._forms[key] = self.linear.forms(operation, forms.get), None
            except Apart as apart:
                self._forms[key] = [], apart
        return self._forms[key]

    def _stuck(self, values: tuple[Value, ...], operation: Operation, apart: Apart) -> Stuck | None:
        inside = set(values)
        suspects = operation.data if apart.value is None else [apart.value]
        blocking = [value for value in suspects if value in inside and value is not values[-1]]
        if not blocking and not set(operation.results) & {values[-1]}:
            blocking = [value for value in operation.results if value in inside]
        return Stuck(tuple(blocking), apart.reason) if blocking else None

    def _is_allowed(self, group: Group) -> bool:
        """Never more kernels or multiply-accumulates, and nothing done to constants alone."""
        assert group.outcome is not None
        after = costs.fused(group.outcome, group.root, self.linear.affine)
        if not costs.not_more(after, group.before):
            return False
        if not callable(self.cost):
            macs = [sum(one.macs for one in part) for part in (after, group.before)]
            if macs[0] > macs[1]:
                return False
        heavy = {Kind.KERNEL, Kind.WINDOW}
        known = any(weight.variables for one in group.operations for weight in one.weights)
        if known or any(one.kind in heavy for one in group.operations):
            return True
        return not any(kernel.kind in {"scale", "add"} for kernel in after)


def _ends_a_mean(operation: Operation, forms: Mapping[Value, State]) -> bool:
    """Whether it is the 1/N of a sum that is computed elsewhere: N depends on the resolution."""
    if operation.name not in {"mul", "div"} or len(operation.data) != 1:
        return False
    (data,), (weight,) = operation.data, operation.weights
    if uniform_number(weight) is None:
        return False
    producer = data.producer
    while producer is not None and producer.kind is Kind.FREE:
        producer = producer.data[0].producer
    if producer is None or producer.name not in {"reduce_sum", "reduce_window_sum"}:
        return False
    if producer.result in forms:
        return False
    return producer.name == "reduce_sum" or all(
        after == 1 or after == before
        for before, after in zip(producer.data[0].shape, producer.result.shape, strict=True)
    )


def is_best(group: Group) -> bool:
    """Whether no division can help: one kernel, no dearer than the dearest one written."""
    kernels = [one for one in group.after if one.kind in {"convolution", "product"}]
    if not group.merged or len(kernels) > 1 or any(one.numbers for one in group.after):
        return False
    dearest = max(kernel.macs for kernel in group.before)
    return max((kernel.macs for kernel in group.after), default=0) <= dearest
