"""Why values were kept apart, in words."""

from __future__ import annotations

import dataclasses
import math

from repjax import jaxprs, primitives
from repjax.primitives import ADDS_UP, Kind
from repjax.tracing.linear.rules import RULES
from repjax.tracing.plan.group import Group, inputs_differ
from repjax.tracing.plan.naming import scope_path
from repjax.tracing.plan.outcome import MULTIPLIES
from repjax.tracing.plan.plan import Plan
from repjax.tracing.plan.search import CHEAPER, DIFFERENT_INPUTS
from repjax.tracing.program.program import Operation, Value


@dataclasses.dataclass(frozen=True)
class Kept:
    """A value that was not merged into its consumer.

    Args:
        path: module path of the operation that made it, or its source line.
        operation: name of that operation.
        reason: why, in words.
        prices: apart and together, where it is a matter of cost.
    """

    path: str
    operation: str
    reason: str
    prices: tuple[float, float] | None = None


def kept_apart(plan: Plan) -> list[Kept]:
    """The values a plan keeps apart, in the order of the program."""
    found: dict[tuple[int, str], Kept] = {}

    def tell(
        operation: Operation | None, reason: str | None, prices: tuple[float, float] | None = None
    ) -> None:
        if operation is not None and reason is not None:
            kept = Kept(_place(operation), _shown_name(operation), reason, prices)
            found.setdefault((operation.number, reason), kept)

    cuts = {cut.value for cut in plan.division.cuts}
    for cut in plan.division.cuts:
        tell(cut.value.producer, cut.reason, cut.prices)
    for group in plan.division.groups:
        for operation, reason in group.notes:
            tell(operation, reason)
        heavy = [one for one in group.operations if one.kind in ADDS_UP]
        if not group.merged and len(heavy) > 1 and not group.notes:
            tell(heavy[0], *_not_merged(group))
        if group.root not in cuts:
            tell(group.root.producer, _used_twice(plan, group.root))
    for operation in plan.program.operations:
        if not any(result in plan.linear.values for result in operation.results):
            tell(operation, _not_linear(plan, operation))
    return [found[key] for key in sorted(found, key=lambda key: key[0])]


def _place(operation: Operation) -> str:
    """The module scopes of an operation without block equations, or its source line."""
    return "/".join(scope_path(operation.scope)) or operation.scope or "(root)"


def _shown_name(operation: Operation) -> str:
    """What a reader would call an operation."""
    short = primitives.look_up(operation.name).short
    return short if short != operation.name else jaxprs.operation_name(operation.equation)


def _not_merged(group: Group) -> tuple[str | None, tuple[float, float] | None]:
    if group.prices is None:
        return None, None
    written, merged = group.prices
    heavy = [kernel for kernel in group.before if kernel.kind in MULTIPLIES]
    if inputs_differ(group, len(heavy)):
        return DIFFERENT_INPUTS, None
    if merged > written:
        return CHEAPER, (written, merged)
    return "together it would take more kernels, multiply-accumulates or parameters", None


def _used_twice(plan: Plan, value: Value) -> str | None:
    linear = [one for one in value.consumers if any(r in plan.linear.values for r in one.results)]
    if not linear:
        return None
    if value.is_output:
        return "is an output of the program"
    others = len(value.consumers) - len(linear)
    if others:
        return f"used by {len(value.consumers)} consumers, {others} of them non-linear"
    return f"used by {len(value.consumers)} consumers that lead to different values"


def _not_linear(plan: Plan, operation: Operation) -> str | None:
    beside = any(value in plan.linear.values for value in operation.data)
    if not beside and operation.kind not in ADDS_UP:
        return None
    joins = operation.name in {"add", "sub", "mul", "div"} and len(operation.data) == 2
    if joins and any(_is_statistic(value) for value in operation.data):
        return "its statistics are computed from data"
    reason = plan.linear.reasons.get(operation)
    if reason is not None or not operation.results:
        return reason
    name = _shown_name(operation)
    if jaxprs.is_custom_derivative(operation.equation):
        body = jaxprs.call_body(operation.equation)
        computes = frozenset({Kind.POINTWISE, Kind.CHOICE})
        if jaxprs.holds(body, primitives.names_of(*computes)):
            return f"not linear: {name}"
        return f"a derivative of its own: {name}"
    if operation.kind in {Kind.POINTWISE, Kind.CHOICE}:
        return f"not linear: {name}"
    if operation.kind is Kind.CALLBACK:
        return f"runs on the host: {name}"
    return None if operation.name in RULES else f"no rule for {name}"


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
        if producer.kind not in ADDS_UP and producer.result.shape != ():
            stack += [
                one for one in producer.data if math.prod(one.shape) <= math.prod(value.shape)
            ]
    return False
