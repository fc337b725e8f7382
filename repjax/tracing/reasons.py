"""Why values were kept apart, in words."""

from __future__ import annotations

import dataclasses
import math

from repjax.tracing import programs
from repjax.tracing.graph import Operation, Value
from repjax.tracing.plan import Plan
from repjax.tracing.regions import HEAVY

SHORT = {
    "conv_general_dilated": "conv",
    "dot_general": "dot",
    "reduce_window_sum": "pool",
    "convolution": "conv",
    "product": "dot",
}


@dataclasses.dataclass(frozen=True)
class Kept:
    """A value that was not merged into its consumer.

    Attributes:
        path: module path of the operation that made it, or its source line.
        operation: name of that operation.
        reason: why, in words.
    """

    path: str
    operation: str
    reason: str


def kept_apart(plan: Plan) -> list[Kept]:
    """The values a plan keeps apart, in the order of the program."""
    found: dict[tuple[int, str], Kept] = {}

    def tell(operation: Operation | None, reason: str | None) -> None:
        if operation is not None and reason is not None:
            kept = Kept(operation.path, _name(operation), reason)
            found.setdefault((operation.number, reason), kept)

    regions = plan.regions
    for value, reason in regions.cuts.items():
        tell(value.producer, reason)
    for group in plan.groups:
        for operation, reason in group.notes:
            tell(operation, reason)
        heavy = [one for one in group.operations if one.name in HEAVY]
        if not group.merged and len(heavy) > 1 and not group.notes:
            tell(heavy[0], "cheaper apart")
        tell(group.operations[-1], _used_twice(plan, group.root))
    for operation in plan.graph.operations:
        if operation in regions.linear:
            continue
        tell(operation, regions.reasons.get(operation) or _not_linear(plan, operation))
    return [found[key] for key in sorted(found, key=lambda key: key[0])]


def _used_twice(plan: Plan, value: Value) -> str | None:
    linear = [one for one in value.consumers if one in plan.regions.linear]
    others = len(value.consumers) - len(linear)
    if value in plan.regions.cuts or not linear:
        return None
    if value.is_output:
        return "is an output of the program"
    return f"used by {len(value.consumers)} consumers, {others} of them non-linear"


def _not_linear(plan: Plan, operation: Operation) -> str | None:
    if not any(value.producer in plan.regions.linear for value in operation.data):
        return None
    if operation.name in {"add", "sub", "mul", "div"} and len(operation.data) == 2:
        if any(_is_statistic(value) for value in operation.data):
            return "its statistics are computed from data"
        return {"mul": "product of data", "div": "quotient of data"}.get(
            operation.name, "sum of data of different shapes"
        )
    if not operation.results or operation.name in {"reduce_sum", "reduce_window_sum", "scan"}:
        return None
    return f"not linear: {_name(operation)}"


def _name(operation: Operation) -> str:
    return SHORT.get(operation.name) or programs.operation_name(operation.equation)


def _is_statistic(value: Value) -> bool:
    """Whether a value is worked out from sums over the data."""
    stack, seen = [value], 0
    while stack and seen < 20:
        producer = stack.pop().producer
        seen += 1
        if producer is None:
            continue
        if producer.name in {"reduce_sum", "reduce_max"}:
            return True
        if producer.name not in HEAVY and producer.result.shape != ():
            stack += [
                one for one in producer.data if math.prod(one.shape) <= math.prod(value.shape)
            ]
    return False
