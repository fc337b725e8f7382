"""Scans over stacked blocks: the body is fused like a program, its parameters stay stacked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax

from repjax.tracing import graph as graphs
from repjax.tracing.expressions import Expressions, Node, as_traced, evaluate
from repjax.tracing.graph import Graph, Operation
from repjax.tracing.naming import Path
from repjax.tracing.programs import Scan
from repjax.tracing.replay import Environment

if TYPE_CHECKING:
    from repjax.tracing.plan import Leaf, Plan

PlanBody = Callable[[Graph, Sequence[Path], Sequence[Any]], "Plan"]


@dataclasses.dataclass(frozen=True)
class Loop:
    """A scan whose body has a plan of its own.

    Attributes:
        operation: the scan.
        scan: its parts.
        plan: the plan of the body; its variables are the operands that are weights.
        weights: positions of those operands.
        leaves: for every parameter of the body, its expression outside.
    """

    operation: Operation
    scan: Scan
    plan: Plan
    weights: tuple[int, ...]
    leaves: dict[Path, Node]

    def run(self, known: Environment) -> None:
        """Run the loop on stacked fused parameters and store its results."""
        operands, scan = self.operation.operands, self.scan
        start = scan.constants + scan.carries
        values = {
            place: as_traced(known[operand], operand.dtype)
            if isinstance(operand, Node)
            else known[operand]
            for place, operand in enumerate(operands)
            if place not in self.weights
        }
        params = {path: known[node] for path, node in self.leaves.items()}
        stacked = {path: value for path, value in params.items() if self.is_stacked(path)}
        sliced = {place: value for place, value in values.items() if place >= start}
        fixed = {place: value for place, value in values.items() if place < scan.constants}

        def body(carry: list[Any], slices: Any) -> tuple[list[Any], list[Any]]:
            part, inputs = slices
            everything = {**fixed, **inputs, **dict(enumerate(carry, scan.constants))}
            data = [everything[place] for place in sorted(everything)]
            results = self.plan.run({**params, **part}, data)
            return results[: scan.carries], results[scan.carries :]

        carry = [values[place] for place in range(scan.constants, start)]
        carry, outputs = jax.lax.scan(
            *(body, carry, (stacked, sliced), scan.length),
            reverse=scan.reverse,
            unroll=scan.unroll,
        )
        known.update(zip(self.operation.results, [*carry, *outputs], strict=True))

    def is_stacked(self, path: Path) -> bool:
        """Whether a parameter of the body differs from turn to turn."""
        leaf = next(leaf for leaf in self.plan.leaves.values() if leaf.path == path)
        return _is_stacked(leaf, self.scan, self.weights)


def read_loop(
    operation: Operation, module: Callable[[Node], Path], plan_body: PlanBody
) -> Loop | None:
    """The loop of a scan, or None if nothing in its body can be fused."""
    scan = Scan.of(operation.equation)
    carried = range(scan.constants, scan.constants + scan.carries)
    weights = tuple(
        place
        for place, operand in enumerate(operation.operands)
        if isinstance(operand, Node) and operand.leaves and place not in carried
    )
    if not weights:
        return None
    inside = Expressions()
    inputs: list[Node | None] = [None] * len(operation.operands)
    paths, dtypes = [], []
    for index, place in enumerate(weights):
        operand = operation.operands[place]
        assert isinstance(operand, Node)
        shape = operand.shape or ()
        inputs[place] = inside.leaf(
            index, shape if place < carried.stop else shape[1:], operand.dtype
        )
        paths.append(module(operand))
        dtypes.append(operand.dtype)
    plan = plan_body(graphs.read(scan.body, inputs, inside), paths, dtypes)
    if not any(group.merged for group in plan.groups):
        return None
    return Loop(operation, scan, plan, weights, {})


def outside_node(leaf: Leaf, loop: Loop, expressions: Expressions) -> Node:
    """The expression, outside of the loop, of a parameter of its body."""
    indices = sorted(leaf.node.leaves)
    operands = [loop.operation.operands[loop.weights[index]] for index in indices]
    nodes = [operand for operand in operands if isinstance(operand, Node)]
    if leaf.node.name == "leaf":
        return nodes[0]
    axes = [0 if _is_slice(index, loop.scan, loop.weights) else None for index in indices]

    def one(*values: Any) -> Any:
        return evaluate([leaf.node], dict(zip(indices, values, strict=True)))[leaf.node]

    def run(*values: Any) -> Any:
        return jax.vmap(one, in_axes=axes)(*values) if 0 in axes else one(*values)

    shape = leaf.node.shape
    if shape is not None and 0 in axes:
        shape = (loop.scan.length, *shape)
    node = expressions.node(
        *("scan", nodes, run), static=(leaf.node.key, tuple(axes)), shape=shape, dtype=leaf.dtype
    )
    return node


def _is_stacked(leaf: Leaf, scan: Scan, weights: Sequence[int]) -> bool:
    return any(_is_slice(index, scan, weights) for index in leaf.node.leaves)


def _is_slice(index: int, scan: Scan, weights: Sequence[int]) -> bool:
    return weights[index] >= scan.constants + scan.carries
