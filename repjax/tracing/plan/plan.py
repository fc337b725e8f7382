"""The plan of a fused program: its instructions, its parameters, and how it was divided."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from repjax.tracing.linear.find import Linear
from repjax.tracing.plan.divide import Decision, Division, decisions
from repjax.tracing.plan.instructions import Environment, Merged, Replay, array_of
from repjax.tracing.plan.loops import Loop
from repjax.tracing.plan.parameters import Parameter, Path, Variable
from repjax.tracing.program.program import Program
from repjax.tracing.program.weights import (
    Weight,
    bind_as_traced,
    constant_value,
    signature,
)


@dataclasses.dataclass(frozen=True)
class Decisions:
    """How a program was divided, and the same for the loops in it."""

    own: tuple[Decision, ...]
    inside: dict[int, Decisions]


@dataclasses.dataclass(frozen=True)
class Plan:
    """How one program runs on fused parameters.

    Args:
        program: the program as read.
        linear: what is linear in it.
        division: its groups and cuts.
        variables: the user's variables.
        instructions: what is done, in order.
        parameters: what is kept for it.
        on_every_call: weights that are worked out on every call, in order.
        inner: plans of the bodies of loops, by the number of the operation.
    """

    program: Program
    linear: Linear
    division: Division
    variables: tuple[Variable, ...]
    instructions: tuple[Replay | Merged | Loop, ...]
    parameters: tuple[Parameter, ...]
    on_every_call: tuple[Weight, ...]
    inner: dict[int, tuple[Plan, int]]

    @property
    def decisions(self) -> Decisions:
        """What another trace of the same program needs in order to be planned alike."""
        inside = {number: plan.decisions for number, (plan, _) in self.inner.items()}
        return Decisions(decisions(self.division), inside)

    def run(self, params: dict[Path, Any], inputs: Sequence[Any]) -> list[Any]:
        """Outputs for fused parameters and flat inputs."""
        known: Environment = dict(zip(self.program.inputs, inputs, strict=True))
        for one in self.parameters:
            known[one.weight] = params[one.path]
        for weight in self.on_every_call:
            if weight not in known:
                known[weight] = _worked_out(weight, known)
        for instruction in self.instructions:
            instruction.run(known)
        return [array_of(known, output) for output in self.program.outputs]

    def signatures(self) -> dict[Path, str]:
        """What the parameters are: equal for two plans iff those of one serve the other."""
        known: dict[Weight, str] = {}
        return {one.path: f"{signature(one.weight, known)} {one.dtype}" for one in self.parameters}


def _worked_out(weight: Weight, known: Environment) -> Any:
    constant = constant_value(weight)
    if constant is not None and weight.name != "constant":
        return constant
    values = [known[operand] for operand in weight.operands]
    if weight.equation is None:
        return weight.run(*values)
    results = bind_as_traced(weight.equation, values)
    return results if weight.shape is None else results[0]
