"""The search for the cheapest division of the values that lead to one root.

It starts without a cut but those that the rules force, and with every cut that may pay; cuts
are made and taken back one by one and in pairs as long as the price falls. Only the groups
beside a cut are looked at again.
"""

from __future__ import annotations

import collections
import dataclasses
import heapq
from collections.abc import Iterable, Mapping, Sequence

from repjax.primitives import ADDS_UP, Kind
from repjax.tracing.plan.evaluator import Evaluator
from repjax.tracing.plan.group import Group, inputs_differ, is_best
from repjax.tracing.program.program import Value

_NEAR = 6
"""How far apart, among the candidates, two cuts are that are tried as a pair."""

CHEAPER = "cheaper apart"
DIFFERENT_INPUTS = "a sum of different inputs"


@dataclasses.dataclass(frozen=True)
class Cut:
    """A value that becomes a root: why, and both prices where it is a matter of price."""

    value: Value
    reason: str
    prices: tuple[float, float] | None = None


@dataclasses.dataclass(frozen=True)
class Split:
    """A division under way: the root of every value, and the members of every root."""

    roots: Mapping[Value, Value]
    members: Mapping[Value, tuple[Value, ...]]
    cuts: frozenset[Value]
    forced: Mapping[Value, str]
    evaluator: Evaluator

    @classmethod
    def of(cls, values: Sequence[Value], evaluator: Evaluator) -> Split:
        """Without cuts."""
        return cls({}, {}, frozenset(), {}, evaluator)._rooted(values)

    @property
    def groups(self) -> list[Group]:
        """The groups."""
        return [self.evaluator.group(values) for values in self.members.values()]

    @property
    def price(self) -> float:
        """What all groups cost."""
        return sum(group.price for group in self.groups)

    def toggled(self, value: Value) -> Split:
        """With a cut more, or one less; cuts that the rules force are made."""
        cuts = self.cuts ^ {value}
        forced = {one: why for one, why in self.forced.items() if one is not value}
        return dataclasses.replace(self, cuts=cuts, forced=forced)._rooted([value])._exact()

    def with_cuts(self, values: Iterable[Value]) -> Split:
        """With these cuts besides."""
        more = set(values) - self.cuts
        return dataclasses.replace(self, cuts=self.cuts | more)._rooted(list(more))._exact()

    def _exact(self) -> Split:
        """With a cut wherever a group is stuck."""
        split = self
        while True:
            fresh: dict[Value, str] = {}
            for group in split.groups:
                if group.stuck is not None:
                    fresh.update(dict.fromkeys(group.stuck.values, group.stuck.reason))
            fresh = {value: why for value, why in fresh.items() if value not in split.cuts}
            if not fresh:
                return split
            cuts, forced = split.cuts | fresh.keys(), {**split.forced, **fresh}
            split = dataclasses.replace(split, cuts=cuts, forced=forced)._rooted(list(fresh))

    def _rooted(self, changed: Sequence[Value]) -> Split:
        """With the roots of some values found anew, and of what leads to them."""
        roots = dict(self.roots)
        touched: set[Value] = set()
        moved: set[Value] = set()
        by_number = {value.number: value for value in changed}
        heap = [-number for number in by_number]
        heapq.heapify(heap)
        while heap:
            value = by_number[-heapq.heappop(heap)]
            before, after = roots.get(value), self._root(value, roots)
            if before is after:
                continue
            roots[value] = after
            moved.add(value)
            touched |= {after} if before is None else {before, after}
            for operand in () if value.producer is None or before is None else value.producer.data:
                if operand in roots and operand.number not in by_number:
                    by_number[operand.number] = operand
                    heapq.heappush(heap, -operand.number)
        members = {root: part for root, part in self.members.items() if root not in touched}
        again: dict[Value, list[Value]] = {}
        old = (one for root in touched for one in self.members.get(root, ()))
        for value in sorted({*old, *moved}, key=lambda one: one.number):
            again.setdefault(roots[value], []).append(value)
        for root, part in again.items():
            members[root] = tuple(part)
        return dataclasses.replace(self, roots=roots, members=members)

    def _root(self, value: Value, roots: Mapping[Value, Value]) -> Value:
        if value in self.cuts or value.is_output:
            return value
        ends: set[Value] = set()
        for consumer in value.consumers:
            if consumer.equation.effects:
                return value
            for result in consumer.results:
                if result.is_used:
                    if result not in roots:
                        return value
                    ends.add(roots[result])
        return ends.pop() if len(ends) == 1 else value


def search(members: tuple[Value, ...], evaluator: Evaluator) -> tuple[Split, list[Cut]]:
    """The best division found of values that lead to one root, and why its cuts are there."""
    start = Split.of(members, evaluator)._exact()
    if all(is_best(group) for group in start.groups):
        return start, [Cut(value, reason) for value, reason in start.forced.items()]
    candidates = _candidates(members)
    ends = [start, start.with_cuts(candidates)] if candidates else [start]
    best = min((_improved(end, candidates) for end in ends), key=lambda split: split.price)
    return best, [_explained(best, value) for value in best.cuts]


def _improved(split: Split, candidates: Sequence[Value]) -> Split:
    queue = collections.deque(candidates)
    price = split.price
    while True:
        while queue:
            value = queue.popleft()
            trial = split.toggled(value)
            if trial.price < price - 1e-9 * price:
                near = _beside(split, trial, candidates)
                split, price = trial, trial.price
                queue.extend(one for one in near if one not in queue)
        for place, value in enumerate(candidates):
            half = split.toggled(value)
            for other in candidates[place + 1 : place + 1 + _NEAR]:
                trial = half.toggled(other)
                if trial.price < price - 1e-9 * price:
                    queue.extend(_beside(split, trial, candidates))
                    split, price = trial, trial.price
                    break
            if queue:
                break
        if not queue:
            return split


def _beside(one: Split, two: Split, candidates: Sequence[Value]) -> list[Value]:
    """The candidates in the groups in which two divisions differ."""
    changed = {
        value for members in two.members.items() - one.members.items() for value in members[1]
    }
    reads = {operand for value in changed if value.producer for operand in value.producer.data}
    return [value for value in candidates if value in changed or value in reads]


def _explained(split: Split, value: Value) -> Cut:
    """Why a value is a root: what the rules say without the cut, or both prices."""
    if value in split.forced:
        return Cut(value, split.forced[value])
    trial = split.toggled(value)
    if value in trial.forced:
        return Cut(value, trial.forced[value])
    together = trial.members.get(trial.roots[value], ())
    pieces = {split.roots[one] for one in together}
    apart = sum(len(split.evaluator.group(split.members[root]).inputs) for root in pieces)
    if inputs_differ(split.evaluator.group(together), apart):
        return Cut(value, DIFFERENT_INPUTS)
    if trial.price > split.price:
        return Cut(value, CHEAPER, (split.price, trial.price))
    return Cut(value, "nothing would be saved")


def _candidates(members: Sequence[Value]) -> list[Value]:
    """Where a cut may pay: beside kernels and windows, joints, stacks and rearrangements."""
    inside = set(members[:-1])
    found: dict[Value, None] = {}
    for value in members:
        operation = value.producer
        assert operation is not None
        if operation.kind in ADDS_UP or len(operation.data) > 1:
            found.update(dict.fromkeys([*operation.data, value]))
        elif operation.kind is Kind.MOVE or operation.name == "reshape":
            found[value] = None
    return sorted((value for value in found if value in inside), key=lambda one: one.number)
