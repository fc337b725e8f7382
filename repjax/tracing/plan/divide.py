"""The division of the linear values into groups.

Every linear value leads to one root, the value all its uses end in, or is a root itself, so
that nothing is computed twice. A region is what leads to one root. It starts as one group;
where a rule says that is not exact, values become roots too (cuts). Then cuts are made and
taken back one by one and in pairs, from no cut and from all of them, as long as the price
falls; only the groups beside a cut are looked at again.
"""

from __future__ import annotations

import collections
import dataclasses
import heapq
from collections.abc import Iterable, Mapping, Sequence

from repjax.primitives import Kind
from repjax.tracing.linear.find import Linear
from repjax.tracing.plan.carry import Carried, carry
from repjax.tracing.plan.groups import Group, Groups, is_best
from repjax.tracing.program.program import Operation, Program, Value

_NEAR = 6
"""How far apart, among the candidates, two cuts are that are tried as a pair."""

CHEAPER = "cheaper apart"


@dataclasses.dataclass(frozen=True)
class Cut:
    """A value that becomes a root: why, and both prices where it is a matter of price."""

    value: Value
    reason: str
    prices: tuple[float, float] | None = None


@dataclasses.dataclass(frozen=True)
class Division:
    """Groups in the order of their roots, the cuts between them, and what passed these."""

    groups: tuple[Group, ...]
    cuts: tuple[Cut, ...]
    carried: Mapping[Value, Carried] = dataclasses.field(default_factory=dict)


def divide(program: Program, groups: Groups) -> Division:
    """The best division found."""
    linear = groups.linear
    values = [value for one in program.operations for value in one.results]
    values = [value for value in values if value in linear.values and value.is_used]
    whole = _Split.of(values, linear, groups)
    found: list[Group] = []
    cuts: list[Cut] = []
    for members in whole.members.values():
        split, reasons = _search(members, linear, groups)
        found += split.groups
        cuts += reasons
    final, carried = carry(_in_order(found), groups)
    ordered = tuple(sorted(cuts, key=lambda cut: cut.value.number))
    return Division(_in_order(final), ordered, carried)


@dataclasses.dataclass(frozen=True)
class Decision:
    """What was decided of a group.

    Attributes:
        values: the numbers of its values.
        merged: whether it is computed at once.
        bias_maps: how many bias maps it has.
        carried: what its readers take with them.
    """

    values: tuple[int, ...]
    merged: bool
    bias_maps: int
    carried: Carried | None


def decisions(division: Division) -> tuple[Decision, ...]:
    """What another trace of the same program needs in order to be divided alike."""
    return tuple(
        Decision(
            tuple(value.number for value in group.values),
            group.merged,
            group.bias_maps,
            division.carried.get(group.root),
        )
        for group in division.groups
    )


def divide_alike(program: Program, groups: Groups, decided: Sequence[Decision]) -> Division:
    """The division of another trace of the same program.

    Raises:
        ValueError: a group that was merged there is not exact here, with the reason.
    """
    values = {value.number: value for one in program.operations for value in one.results}
    found: list[Group] = []
    chosen: dict[Value, Carried] = {}
    for decision in decided:
        members = tuple(values[number] for number in decision.values)
        linear = all(value in groups.linear.values for value in members)
        group = groups.group(members) if linear else None
        if group is not None and (group.outcome is not None or not decision.merged):
            found.append(groups.as_decided(group, decision.merged))
            if decision.carried is not None:
                chosen[group.root] = decision.carried
        elif decision.merged:
            stuck = None if group is None else group.stuck
            raise ValueError("its axes differ" if stuck is None else stuck.reason)
    final, carried = carry(found, groups, chosen)
    if carried != chosen:
        raise ValueError("a constant cannot be added further on")
    counts = {decision.values[-1]: decision.bias_maps for decision in decided}
    final = [
        groups.with_fewer_bias_maps(group, counts[group.root.number]) for group in final
    ]
    return Division(_in_order(final), (), carried)


def _in_order(groups: Iterable[Group]) -> tuple[Group, ...]:
    return tuple(sorted(groups, key=lambda group: group.root.number))


@dataclasses.dataclass(frozen=True)
class _Split:
    """A division under way: the root of every value, and the members of every root."""

    roots: Mapping[Value, Value]
    members: Mapping[Value, tuple[Value, ...]]
    cuts: frozenset[Value]
    forced: Mapping[Value, str]
    linear: Linear
    evaluate: Groups

    @classmethod
    def of(cls, values: Sequence[Value], linear: Linear, groups: Groups) -> _Split:
        """Without cuts."""
        empty = cls({}, {}, frozenset(), {}, linear, groups)
        return empty._rooted(values)

    @property
    def groups(self) -> list[Group]:
        """The groups."""
        return [self.evaluate.group(values) for values in self.members.values()]

    @property
    def price(self) -> float:
        """What all groups cost."""
        return sum(group.price for group in self.groups)

    def flipped(self, value: Value) -> _Split:
        """With a cut more, or one less; cuts that the rules force are made."""
        cuts = self.cuts ^ {value}
        forced = {one: why for one, why in self.forced.items() if one is not value}
        return dataclasses.replace(self, cuts=cuts, forced=forced)._rooted([value])._exact()

    def with_cuts(self, values: Iterable[Value]) -> _Split:
        """With these cuts besides."""
        more = set(values) - self.cuts
        return dataclasses.replace(self, cuts=self.cuts | more)._rooted(list(more))._exact()

    def _exact(self) -> _Split:
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

    def _rooted(self, changed: Sequence[Value]) -> _Split:
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


def _search(
    members: tuple[Value, ...], linear: Linear, groups: Groups
) -> tuple[_Split, list[Cut]]:
    start = _Split.of(members, linear, groups)._exact()
    if all(is_best(group) for group in start.groups):
        return start, [Cut(value, reason) for value, reason in start.forced.items()]
    candidates = _candidates(members)
    ends = [start, start.with_cuts(candidates)] if candidates else [start]
    best = min((_improved(end, candidates) for end in ends), key=lambda split: split.price)
    return best, [_explained(best, value) for value in best.cuts]


def _improved(split: _Split, candidates: Sequence[Value]) -> _Split:
    queue = collections.deque(candidates)
    price = split.price
    while True:
        while queue:
            value = queue.popleft()
            trial = split.flipped(value)
            if trial.price < price - 1e-9 * price:
                near = _beside(split, trial, candidates)
                split, price = trial, trial.price
                queue.extend(one for one in near if one not in queue)
        for place, value in enumerate(candidates):
            half = split.flipped(value)
            for other in candidates[place + 1 : place + 1 + _NEAR]:
                trial = half.flipped(other)
                if trial.price < price - 1e-9 * price:
                    queue.extend(_beside(split, trial, candidates))
                    split, price = trial, trial.price
                    break
            if queue:
                break
        if not queue:
            return split


def _beside(one: _Split, two: _Split, candidates: Sequence[Value]) -> list[Value]:
    """The candidates in the groups in which two divisions differ."""
    changed = {
        value
        for members in two.members.items() - one.members.items()
        for value in members[1]
    }
    reads = {operand for value in changed if value.producer for operand in value.producer.data}
    return [value for value in candidates if value in changed or value in reads]


def _explained(split: _Split, value: Value) -> Cut:
    """Why a value is a root: what the rules say without the cut, or both prices."""
    if value in split.forced:
        return Cut(value, split.forced[value])
    trial = split.flipped(value)
    if value in trial.forced:
        return Cut(value, trial.forced[value])
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
        if operation.kind in {Kind.KERNEL, Kind.WINDOW} or _is_joint(operation):
            found.update(dict.fromkeys([*operation.data, value]))
        elif operation.kind is Kind.MOVE or operation.name == "reshape":
            found[value] = None
    return sorted((value for value in found if value in inside), key=lambda one: one.number)


def _is_joint(operation: Operation) -> bool:
    return len(operation.data) > 1
