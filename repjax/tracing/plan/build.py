"""From a program to its plan: divide, write instructions, name parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from repjax.algebra.dtypes import common_dtype
from repjax.primitives import Kind
from repjax.tracing.linear.find import Linear, find_linear, nothing_linear
from repjax.tracing.plan import cost as costs
from repjax.tracing.plan.divide import Division, divide, divide_alike
from repjax.tracing.plan.evaluator import Evaluator
from repjax.tracing.plan.group import Group
from repjax.tracing.plan.instructions import Merged, Replay, Types
from repjax.tracing.plan.loops import Loop, read_body
from repjax.tracing.plan.naming import (
    Names,
    indices_of,
    module_of,
    module_of_group,
    scope_path,
)
from repjax.tracing.plan.outcome import MULTIPLIES, with_plain_kernels
from repjax.tracing.plan.parameters import Parameter, Path, Variable
from repjax.tracing.plan.plan import Decisions, Plan
from repjax.tracing.program.program import Operation, Program, Value
from repjax.tracing.program.weights import Weight, constant_value, is_float


def make_plan(
    program: Program,
    variables: Sequence[Variable],
    cost: costs.Cost,
    like: Decisions | None = None,
) -> Plan:
    """Plan a program.

    Args:
        program: the program.
        variables: where the user's variables are kept.
        cost: what may not grow.
        like: the decisions of another trace of the program; None to search.

    Raises:
        ValueError: what was decided there is not exact here.
    """
    linear = find_linear(program)
    evaluator = Evaluator(linear, cost)
    division = (
        divide(program, evaluator) if like is None else divide_alike(program, evaluator, like.own)
    )
    return _Builder(program, linear, division, tuple(variables), cost, like).plan()


def written_plan(program: Program, variables: Sequence[Variable], cost: costs.Cost) -> Plan:
    """The plan that replays everything as written."""
    return _Builder(
        program, nothing_linear(program), Division((), ()), tuple(variables), cost, None
    ).plan()


class _Builder:
    """Builds the instructions of a plan and names its parameters."""

    def __init__(
        self,
        program: Program,
        linear: Linear,
        division: Division,
        variables: tuple[Variable, ...],
        cost: costs.Cost,
        like: Decisions | None,
    ) -> None:
        self.program, self.linear, self.division = program, linear, division
        self.variables, self.cost, self.like = variables, cost, like
        self.names = Names()
        self.parameters: dict[Weight, Parameter] = {}
        self.inner: dict[int, tuple[Plan, int]] = {}
        self.needed: dict[Weight, None] = {}
        self.scopes: dict[Weight, Path] = {}

    def plan(self) -> Plan:
        """Everything in order."""
        merged = {group.root: group for group in self.division.groups if group.merged}
        inside = {
            value for group in merged.values() for value in group.values if value is not group.root
        }
        instructions: list[Replay | Merged | Loop] = []
        for operation in self.program.operations:
            done = [value for value in operation.results if value in merged]
            left = [
                value
                for value in operation.results
                if value not in merged and value not in inside and value.is_used
            ]
            if left or not (done or any(value in inside for value in operation.results)):
                instructions.append(self._loop(operation) or self._replay(operation))
            instructions += [
                self._merged(merged[value]) for value in done if merged[value].outcome is not None
            ]
        self.needed.update(
            dict.fromkeys(one for one in self.program.outputs if isinstance(one, Weight))
        )
        light = self._schedule()
        return Plan(
            self.program,
            self.linear,
            self.division,
            self.variables,
            tuple(instructions),
            tuple(self.parameters.values()),
            tuple(light),
            self.inner,
        )

    def _replay(self, operation: Operation) -> Replay:
        for weight in operation.weights:
            self.needed[weight] = None
            self.scopes.setdefault(weight, scope_path(operation.scope))
        return Replay(operation)

    def _merged(self, group: Group) -> Merged:
        assert group.outcome is not None
        outcome, scope = with_plain_kernels(group.outcome), module_of_group(group, self.variables)
        everything = list(outcome.weights)
        dtype = self._stored_dtype(everything, group.root.dtype)
        modules: list[Path] = []
        for part in outcome.parts:
            for term in part.terms:
                kernel = term.map.kernel
                if term.kind in MULTIPLIES:
                    modules.append(self._module([kernel], scope))
                    kind = self._stored_dtype([kernel], dtype)
                    self._keep(kernel, modules[-1], "kernel", kind)
                elif term.kind == "scale":
                    assert term.map.scale is not None
                    kind = self._stored_dtype([term.map.scale], dtype)
                    self._keep(term.map.scale, self._module([term.map.scale], scope), "scale", kind)
        module = modules[0] if modules else self._module(everything, scope)
        for part in outcome.parts:
            for _, one in part.bias_maps:
                self._keep(one.kernel, module, "bias_map", dtype)
            if part.image is not None:
                self._keep(part.image, module, "bias_image", dtype)
            if part.bias is not None:
                self._keep(part.bias, module, "bias", dtype)
        return Merged(group.root, outcome, self._types(group), self.linear.affine)

    def _types(self, group: Group) -> Types:
        heavy = [value for value in group.values if _is_kernel(value)]
        if not heavy:
            return Types(group.root.dtype, group.root.dtype, None)

        def work(value: Value) -> float:
            return sum(kernel.macs for kernel in costs.written(value, self.linear.affine))

        operation = max(heavy, key=work).producer
        assert operation is not None
        accumulate = operation.params["preferred_element_type"] or operation.result.dtype
        return Types(operation.data[0].dtype, accumulate, operation.params["precision"])

    def _loop(self, operation: Operation) -> Loop | None:
        if operation.name != "scan":
            return None
        body = read_body(operation, lambda weight: self.variables[min(weight.variables)].path)
        if body is None:
            return None
        like = None if self.like is None else self.like.inside.get(operation.number)
        if self.like is not None and like is None:
            return None
        plan = make_plan(body.program, body.variables, self.cost, like)
        if not any(group.merged for group in plan.division.groups):
            return None
        leaves: dict[Path, Weight] = {}
        stacked: set[Path] = set()
        for parameter in plan.parameters:
            weight = body.outside(parameter, self.program.weights)
            leaves[parameter.path] = weight
            if any(body.is_slice(index) for index in parameter.weight.variables):
                stacked.add(parameter.path)
            if weight.name == "scan":
                self._keep(weight, parameter.path[:-1], parameter.path[-1], parameter.dtype)
        for place, operand in enumerate(operation.operands):
            if isinstance(operand, Weight) and place not in body.places:
                self.needed[operand] = None
        self.needed.update(dict.fromkeys(leaves.values()))
        self.inner[operation.number] = plan, body.scan.length
        return Loop(body, plan.run, leaves, frozenset(stacked))

    def _stored_dtype(self, weights: Sequence[Weight], otherwise: Any) -> Any:
        """The type of the variables that come in as kernels, or of all if there are none."""
        indices = indices_of(weights)
        found = [self.variables[index].dtype for index in indices]
        found = [dtype for dtype in found if is_float(dtype)]
        return common_dtype(*found) if found else otherwise

    def _module(self, weights: Sequence[Weight], scope: Path) -> Path:
        indices = indices_of(weights)
        return module_of([self.variables[index].path for index in indices]) or scope

    def _keep(self, weight: Weight, module: Path, name: str, dtype: Any) -> None:
        if not weight.variables:
            self.needed[weight] = None
        elif weight not in self.parameters:
            path = self.names.take(module, name)
            self.parameters[weight] = Parameter(path, weight, dtype)

    def _schedule(self) -> list[Weight]:
        """Parameters that replayed operations read, and the weights to be worked out from them."""
        order: set[Weight] = set()
        stack = list(reversed(self.needed))
        while stack:
            weight = stack.pop()
            if weight in self.parameters or weight in order:
                continue
            if weight.name == "variable":
                path = self.variables[weight.value].path
                self._keep(weight, path[:-1], path[-1], None)
            elif _is_kept(weight):
                first = self.variables[min(weight.kernels or weight.variables)].path
                name = "kernel" if weight.kernels else first[-1]
                module = self._module([weight], self.scopes.get(weight, ()))
                self._keep(weight, module, name, self._stored_dtype([weight], weight.dtype))
            else:
                order.add(weight)
                if constant_value(weight) is None:
                    stack.extend(reversed(weight.operands))
        return sorted(order, key=lambda weight: weight.number)


def _is_kernel(value: Value) -> bool:
    return value.producer is not None and value.producer.kind is Kind.KERNEL


def _is_kept(weight: Weight) -> bool:
    """Whether a weight is worked out when fusing: a computation that does not spread it."""
    if not weight.variables or weight.sized:
        return False
    if not is_float(weight.dtype) or costs.is_light(weight):
        return False
    sizes = [math.prod(operand.shape or ()) for operand in weight.operands if operand.variables]
    return math.prod(weight.shape or ()) <= sum(sizes) or weight.name == "part"
