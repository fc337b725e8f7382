"""Evaluates groups: how a root is computed at once, what that costs, whether it is merged."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from repjax.primitives import ADDS_UP
from repjax.tracing.linear.find import Linear, sum_before
from repjax.tracing.linear.forms import Apart, Form, State
from repjax.tracing.linear.vectors import uniform_number
from repjax.tracing.plan import cost as costs
from repjax.tracing.plan.group import Group, Stuck, kernel_signatures, numbers_read, numbers_stored
from repjax.tracing.plan.outcome import outcomes, without_idle_maps
from repjax.tracing.program.program import Operation, Value


class Evaluator:
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
        """The group where values it reads have these forms; None if it cannot be.

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
        candidates = []
        for outcome in found:
            after = tuple(costs.fused(outcome, affine))
            price = costs.price(after, self.cost)
            both = written, price
            way = Group(values, outcome, before, after, True, price, both, None, tuple(notes))
            candidates.append(dataclasses.replace(way, given=given, ways=tuple(found)))
        free = [way for way in candidates if way.outcome is not None and not way.outcome.is_tied]
        allowed = [way for way in free if way.price < written and self._is_allowed(way)]
        if allowed:
            return min(allowed, key=lambda way: way.price)
        best = min(free, key=lambda way: way.price)
        return dataclasses.replace(best, after=before, merged=False, price=written)

    def as_decided(self, group: Group, merged: bool, numbers: tuple[str, ...] = ()) -> Group:
        """The group as it was decided elsewhere, whatever it costs here.

        Args:
            group: the group as it would be divided here.
            merged: whether it is computed at once.
            numbers: signatures of its kernels and scales; empty if they do not matter.
        """
        for way in group.ways if numbers else ():
            if kernel_signatures(way) == numbers:
                group = dataclasses.replace(group, outcome=way, merged=not merged)
                break
        if group.merged == merged or group.outcome is None:
            return group
        after = group.before
        if merged:
            after = tuple(costs.fused(group.outcome, self.linear.affine))
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
        """Never more kernels, work or numbers in kernels, and nothing done to constants alone."""
        assert group.outcome is not None
        after = costs.fused(group.outcome, self.linear.affine)
        if not costs.no_more_kernels(after, group.before):
            return False
        if not callable(self.cost):
            macs = [sum(one.macs for one in part) for part in (after, group.before)]
            if macs[0] > macs[1] or numbers_stored(group.outcome) > numbers_read(group):
                return False
        known = any(weight.variables for one in group.operations for weight in one.weights)
        if known or any(one.kind in ADDS_UP for one in group.operations):
            return True
        return not any(kernel.kind in {"scale", "add"} for kernel in after)


def _ends_a_mean(operation: Operation, forms: Mapping[Value, State]) -> bool:
    """Whether it is the 1/N of a sum that is computed elsewhere: N depends on the resolution."""
    if operation.name not in {"mul", "div"} or len(operation.data) != 1:
        return False
    (data,), (weight,) = operation.data, operation.weights
    if uniform_number(weight) is None:
        return False
    total = sum_before(data)
    if total is None or total.result in forms:
        return False
    return total.name == "reduce_sum" or all(
        after == 1 or after == before
        for before, after in zip(total.data[0].shape, total.result.shape, strict=True)
    )
