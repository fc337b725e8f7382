"""Regions: which linear operations become one form, decided by borders, uses and cost.

Every linear value leads to one root, the value all its uses end in, or is a root itself, so
that nothing is computed twice. A region is what leads to one root. It starts as one form;
where a rule says that is not exact, its operands become roots too (a cut); then cuts are
tried and taken back as long as the cost falls.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from repjax.tracing import cost as costs
from repjax.tracing.axes import Axes, Layout
from repjax.tracing.forms import Apart, Form, Forms
from repjax.tracing.graph import Graph, Operation, Value
from repjax.tracing.rules import RULES, Context

HEAVY = frozenset({"conv_general_dilated", "dot_general", "reduce_window_sum"})
_JOINTS = frozenset({"add", "add_any", "sub", "concatenate"})


@dataclasses.dataclass(eq=False)
class Group:
    """Operations that lead to one root, their form, and what both ways cost.

    `form` is None where the operations can only stay as they are written.
    """

    operations: tuple[Operation, ...]
    form: Form | None
    kernels_before: list[costs.Kernel]
    kernels_after: list[costs.Kernel]
    merged: bool
    price: float
    stuck: tuple[Operation, str, Value | None] | None = None
    notes: tuple[tuple[Operation, str], ...] = ()

    @property
    def root(self) -> Value:
        """The value the group computes."""
        return self.operations[-1].result


class Regions:
    """The linear part of a graph and its division into groups."""

    def __init__(self, graph: Graph, cost: costs.Cost) -> None:
        self.cost = cost
        self.axes = Axes()
        self.reasons: dict[Operation, str] = {}
        self.cuts: dict[Value, str] = {}
        self._graph = graph
        self._layouts: dict[Value, Layout] = {}
        self._forms: dict[Value, Form] = {}
        self._groups: dict[tuple[Operation, ...], Group] = {}
        self._notes: list[tuple[Operation, str]] = []
        self.maps = Forms(graph.expressions, lambda value: self.layout(value).sizes(value))
        self._context = Context(self.maps, self.axes, self.layout, self._form, self._note)
        self.linear = self._find_linear()

    def layout(self, value: Value) -> Layout:
        """The layout of a value, once all axes are related."""
        found = self._layouts.get(value)
        if found is None:
            found = self._layouts[value] = self.axes.layout(value)
        return found

    def divide(self, chosen: frozenset[int] | None = None) -> list[Group]:
        """All groups, in order of their roots.

        Args:
            chosen: numbers of the operations whose results are cut, as another trace of the
                program had them; None to search.
        """
        groups: list[Group] = []
        for operations in self._regions():
            if chosen is None:
                cuts = self._search(operations)
            else:
                cuts = {one.result for one in operations if one.number in chosen}
            found, forced = self._collapse(operations, cuts)
            for value, reason in forced.items():
                self.cuts[value] = reason
            for value in cuts:
                self.cuts.setdefault(value, "cheaper apart")
            groups += found
        return sorted(groups, key=lambda group: group.operations[-1].number)

    # Which operations are linear.

    def _find_linear(self) -> set[Operation]:
        related: dict[Operation, None] = {}
        rules = [(one, RULES[one.name]) for one in self._graph.operations if one.name in RULES]
        from repjax.tracing.rules_elementwise import channel_of_vector

        for operation, rule in sorted(rules, key=lambda pair: (pair[1].rank, pair[0].number)):
            if not operation.equation.effects and operation.data:
                relation = rule.relate(operation, self.axes)
                if relation is not None and self.axes.relate(relation):
                    related[operation] = None
        for operation in self._graph.operations:
            relation = channel_of_vector(operation) if operation in related else None
            if relation is not None:
                self.axes.relate(relation)
        for operation in related:
            for value in (*operation.data, operation.result):
                self.axes.assume_channel(value)
        linear = set()
        for operation in self._graph.operations:
            if operation in related and self._is_static(operation):
                self._forms = {}
                try:
                    self.maps.settle(RULES[operation.name].form(operation, self._context))
                except Apart as apart:
                    self.reasons[operation] = apart.reason
                    if operation.name != "concatenate":
                        continue
                linear.add(operation)
        return linear

    def _is_static(self, operation: Operation) -> bool:
        for value in (*operation.data, operation.result):
            layout = self.layout(value)
            if layout.channel < 0:
                return False
            sizes = [value.shape[axis] for axis in (*layout.space, layout.channel)]
            if not all(isinstance(size, int) and size > 0 for size in sizes):
                return False
        return True

    def _form(self, value: Value) -> Form:
        form = self._forms.get(value)
        if form is None:
            features = value.shape[self.layout(value).channel]
            form = Form(((value, self.maps.identity(features, self.layout(value).dims)),))
        return form

    def _note(self, operation: Operation, reasons: list[str]) -> None:
        self._notes += [(operation, reason) for reason in reasons]

    # Which of them lead to one root.

    def _regions(self) -> list[list[Operation]]:
        linear = [one for one in self._graph.operations if one in self.linear]
        return list(self._split(linear, ()).values())

    def _split(
        self, operations: Sequence[Operation], cuts: Iterable[Value]
    ) -> dict[Value, list[Operation]]:
        inside = set(operations)
        cuts = set(cuts)
        roots: dict[Value, Value] = {}
        for operation in reversed(operations):
            value = operation.result
            roots[value] = value
            if value in cuts or value.is_output or not value.consumers:
                continue
            if all(consumer in inside for consumer in value.consumers):
                ends = {roots[consumer.result] for consumer in value.consumers}
                if len(ends) == 1:
                    roots[value] = ends.pop()
        regions: dict[Value, list[Operation]] = {}
        for operation in operations:
            regions.setdefault(roots[operation.result], []).append(operation)
        return regions

    # One region: collapse, cut where it must be, improve.

    def _collapse(
        self, operations: Sequence[Operation], cuts: Iterable[Value]
    ) -> tuple[list[Group], dict[Value, str]]:
        cut = set(cuts)
        forced: dict[Value, str] = {}
        while True:
            groups = [self._group(tuple(part)) for part in self._split(operations, cut).values()]
            fresh: dict[Value, str] = {}
            for group in groups:
                if group.stuck is not None:
                    operation, reason, culprit = group.stuck
                    inside = {one.result for one in group.operations}
                    suspects = operation.data if culprit is None else [culprit]
                    blocking = [value for value in suspects if value in inside]
                    if not blocking and operation is not group.operations[-1]:
                        blocking = [operation.result]
                    fresh.update(dict.fromkeys(blocking, reason))
            if not fresh:
                return groups, forced
            cut.update(fresh)
            forced.update(fresh)

    def _group(self, operations: tuple[Operation, ...]) -> Group:
        group = self._groups.get(operations)
        if group is None:
            group = self._groups[operations] = self._new_group(operations)
        return group

    def _new_group(self, operations: tuple[Operation, ...]) -> Group:
        self._forms, self._notes = {}, []
        root = operations[-1].result
        before = [
            kernel
            for operation in operations
            for kernel in costs.written(operation, self.layout(operation.result))
        ]
        price = costs.price(before, self.cost)
        for operation in operations:
            try:
                form = RULES[operation.name].form(operation, self._context)
                if operation is operations[-1]:
                    form = self.maps.settle(form)
            except Apart as apart:
                stuck = (operation, apart.reason, apart.value)
                return Group(operations, None, before, before, False, price, stuck)
            self._forms[operation.result] = form
        spatial = any(one.name == "conv_general_dilated" for one in operations)
        after = costs.fused(form, root, self.layout(root), spatial=spatial)
        better = costs.price(after, self.cost)
        merged = better < price and _not_more(after, before)
        if not callable(self.cost):
            merged &= sum(one.macs for one in after) <= sum(one.macs for one in before)
        notes = tuple(self._notes)
        self._forms = {}
        if not merged:
            return Group(operations, form, before, before, False, price, None, notes)
        return Group(operations, form, before, after, True, better, None, notes)

    def _search(self, operations: Sequence[Operation]) -> set[Value]:
        groups, _ = self._collapse(operations, ())
        if len(groups) == 1 and _is_best(groups[0]):
            return set()
        candidates = self._candidates(operations)
        best: tuple[float, set[Value]] | None = None
        for start in (set(), set(candidates)):
            cuts = set(start)
            price = self._price(operations, cuts)
            improved = True
            while improved:
                improved = False
                for value in candidates:
                    trial = cuts ^ {value}
                    trial_price = self._price(operations, trial)
                    if trial_price < price or (trial_price == price and value in cuts):
                        improved |= trial_price < price
                        cuts, price = trial, trial_price
            if best is None or price < best[0]:
                best = price, cuts
        assert best is not None
        return best[1]

    def _price(self, operations: Sequence[Operation], cuts: set[Value]) -> float:
        groups, _ = self._collapse(operations, cuts)
        return sum(group.price for group in groups)

    def _candidates(self, operations: Sequence[Operation]) -> list[Value]:
        inside = {one.result for one in operations[:-1]}
        found: dict[Value, None] = {}
        for operation in operations:
            if operation.name in HEAVY:
                found.update(dict.fromkeys([*operation.data, operation.result]))
            elif operation.name in _JOINTS:
                found.update(dict.fromkeys(operation.data))
        return [value for value in found if value in inside]


def _heavy(kernels: Sequence[costs.Kernel]) -> int:
    return sum(kernel.kind in {"convolution", "product"} for kernel in kernels)


def _not_more(after: Sequence[costs.Kernel], before: Sequence[costs.Kernel]) -> bool:
    """Neither more convolutions nor more convolutions and products together."""
    convolutions = [sum(one.kind == "convolution" for one in part) for part in (after, before)]
    return convolutions[0] <= convolutions[1] and _heavy(after) <= _heavy(before)


def _is_best(group: Group) -> bool:
    """Whether no cut can help: one kernel, no dearer than the dearest one written."""
    if not group.merged or _heavy(group.kernels_after) > 1:
        return False
    dearest = max(kernel.macs for kernel in group.kernels_before)
    return max((kernel.macs for kernel in group.kernels_after), default=0) <= dearest
