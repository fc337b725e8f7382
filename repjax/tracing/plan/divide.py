"""The division of the linear values into groups.

Every linear value leads to one root, the value all its uses end in, or is a root itself, so
that nothing is computed twice. `search` cuts what leads to one root into groups; `carry` then
lets constants pass the cuts; `divide_alike` repeats the division for another trace.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from repjax.tracing.plan.carry import Carried, carry
from repjax.tracing.plan.evaluator import Evaluator
from repjax.tracing.plan.group import Group, kernel_signatures
from repjax.tracing.plan.search import Cut, Split, search
from repjax.tracing.program.program import Program, Value


@dataclasses.dataclass(frozen=True)
class Division:
    """Groups in the order of their roots, the cuts between them, and what passed these."""

    groups: tuple[Group, ...]
    cuts: tuple[Cut, ...]
    carried: Mapping[Value, Carried] = dataclasses.field(default_factory=dict)


def divide(program: Program, evaluator: Evaluator) -> Division:
    """The best division found."""
    values = [value for one in program.operations for value in one.results]
    values = [value for value in values if value in evaluator.linear.values and value.is_used]
    whole = Split.of(values, evaluator)
    found: list[Group] = []
    cuts: list[Cut] = []
    for members in whole.members.values():
        split, reasons = search(members, evaluator)
        found += split.groups
        cuts += reasons
    final, carried = carry(_in_order(found), evaluator)
    ordered = tuple(sorted(cuts, key=lambda cut: cut.value.number))
    return Division(_in_order(final), ordered, carried)


@dataclasses.dataclass(frozen=True)
class Decision:
    """What was decided of a group.

    Args:
        values: the numbers of its values.
        merged: whether it is computed at once.
        bias_maps: how many bias maps it has.
        kernels: signatures of its kernels and scales.
        carried: what its readers take with them.
    """

    values: tuple[int, ...]
    merged: bool
    bias_maps: int
    kernels: tuple[str, ...]
    carried: Carried | None


def decisions(division: Division) -> tuple[Decision, ...]:
    """What another trace of the same program needs in order to be divided alike."""
    return tuple(
        Decision(
            tuple(value.number for value in group.values),
            group.merged,
            group.bias_maps,
            kernel_signatures(group.outcome) if group.merged else (),
            division.carried.get(group.root),
        )
        for group in division.groups
    )


def divide_alike(program: Program, evaluator: Evaluator, decided: Sequence[Decision]) -> Division:
    """The division of another trace of the same program.

    Raises:
        ValueError: a group that was merged there is not exact here, with the reason.
    """
    values = {value.number: value for one in program.operations for value in one.results}
    found: list[Group] = []
    chosen: dict[Value, Carried] = {}
    for decision in decided:
        members = tuple(values[number] for number in decision.values)
        linear = all(value in evaluator.linear.values for value in members)
        group = evaluator.group(members) if linear else None
        if group is not None and (group.outcome is not None or not decision.merged):
            found.append(evaluator.as_decided(group, decision.merged, decision.kernels))
            if decision.carried is not None:
                chosen[group.root] = decision.carried
        elif decision.merged:
            stuck = None if group is None else group.stuck
            raise ValueError("its axes differ" if stuck is None else stuck.reason)
    final, carried = carry(found, evaluator, chosen)
    if carried != chosen:
        raise ValueError("a constant cannot be added further on")
    counts = {decision.values[-1]: decision.bias_maps for decision in decided}
    final = [evaluator.with_fewer_bias_maps(group, counts[group.root.number]) for group in final]
    return Division(_in_order(final), (), carried)


def _in_order(groups: Iterable[Group]) -> tuple[Group, ...]:
    return tuple(sorted(groups, key=lambda group: group.root.number))
