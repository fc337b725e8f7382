"""Constants and scales pass a cut: they may be added or multiplied further on, at no cost.

A group ends in a bias, a bias map or an image; the groups that read it are linear too. Then
these may take the constant with them, and the cut value is kept without it. A group that only
scales and shifts one value may go into all its readers as a whole, and is computed no more.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping, Sequence

from repjax.tracing.linear.forms import Base, Form
from repjax.tracing.linear.maps import Map
from repjax.tracing.plan.evaluator import Evaluator
from repjax.tracing.plan.group import Group
from repjax.tracing.plan.outcome import Outcome
from repjax.tracing.program.program import Value


class Carried(enum.Enum):
    """What the readers of a root take with them."""

    CONSTANTS = "what is added to it"
    EVERYTHING = "all of it: it is not computed"


def carry(
    found: Sequence[Group], evaluator: Evaluator, chosen: Mapping[Value, Carried] | None = None
) -> tuple[list[Group], dict[Value, Carried]]:
    """Groups in which scales and constants are applied where that is cheapest.

    Args:
        found: all groups, in the order of their roots.
        evaluator: evaluates groups.
        chosen: what was carried in another trace; None to decide.

    Returns:
        The groups, and what the readers of some roots take with them.
    """
    result = {group.root: group for group in found}
    home = {value: group.root for group in found for value in group.values}
    carried: dict[Value, Carried] = {}
    for root in list(result):
        readers = _readers(root, home)
        for what in (Carried.EVERYTHING, Carried.CONSTANTS) if readers else ():
            if chosen is not None and chosen.get(root) is not what:
                continue
            pair = _without(result[root], what, evaluator)
            if pair is None:
                continue
            bare, form = pair
            after = [evaluator.with_given(result[reader], {root: form}) for reader in readers]
            merged = [one for one in after if one is not None]
            if len(merged) < len(after):
                continue
            before = result[root].price + sum(result[reader].price for reader in readers)
            if chosen is None and bare.price + sum(one.price for one in merged) >= before:
                continue
            result[root] = bare
            result.update({one.root: one for one in merged})
            carried[root] = what
            break
    return list(result.values()), carried


def _without(group: Group, what: Carried, evaluator: Evaluator) -> tuple[Group, Form] | None:
    """The group as it would be left, and the form of its root in terms of what is kept."""
    outcome, root = group.outcome, group.root
    if outcome is None or not _is_plain(outcome) or not outcome.parts[0].terms:
        return None
    (part,) = outcome.parts
    alone = evaluator.linear.affine.of_value(root)
    terms: tuple[tuple[Base, Map], ...] = alone.terms
    left: Group | None
    if what is Carried.EVERYTHING:
        (first, *others) = part.terms
        light = first.kind in {"identity", "scale", "negative"} and isinstance(first.base, Value)
        if others or not light or first.window is not None:
            return None
        terms, left = ((first.base, first.map),), evaluator.not_computed(group)
    else:
        if part.bias is None and part.image is None and not part.bias_maps:
            return None
        left = evaluator.without_constants(group)
    form = dataclasses.replace(
        alone, terms=(*terms, *part.bias_maps), bias=part.bias, image=part.image
    )
    return None if left is None else (left, form)


def _is_plain(outcome: Outcome) -> bool:
    """Whether an outcome is one sum, and nothing comes after it."""
    return len(outcome.parts) == 1 and outcome.view is None and not outcome.operations


def _readers(root: Value, home: dict[Value, Value]) -> list[Value]:
    """The roots of all groups that read a value; empty if something else reads it too."""
    if root.is_output:
        return []
    readers: dict[Value, None] = {}
    for consumer in root.consumers:
        for result in consumer.results:
            if consumer.equation.effects or (result.is_used and result not in home):
                return []
            if result.is_used:
                readers[home[result]] = None
    return [reader for reader in readers if reader is not root]
