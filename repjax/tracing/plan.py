"""The plan of a fused program: instructions, parameters, and what to report of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from repjax.algebra.dtypes import common_dtype
from repjax.tracing import cost as costs
from repjax.tracing.expressions import (
    Node,
    as_traced,
    bind_as_traced,
    evaluate,
    is_float,
)
from repjax.tracing.graph import Graph, Operation
from repjax.tracing.loops import Loop, outside_node, read_loop
from repjax.tracing.naming import Names, Path, module_of
from repjax.tracing.regions import Group, Regions
from repjax.tracing.replay import Environment, Merged, Numbers, Replay, Term


@dataclasses.dataclass(frozen=True)
class Leaf:
    """A fused parameter: where it is kept, its expression and its stored type (None: as is)."""

    path: Path
    node: Node
    dtype: Any


@dataclasses.dataclass(frozen=True)
class Cuts:
    """Where a plan divides its program: numbers of operations, and the same inside loops."""

    own: frozenset[int]
    inside: dict[int, Cuts]


class Plan:
    """How one program runs on fused parameters.

    Args:
        graph: the program.
        paths: where the variables are kept, per leaf.
        dtypes: their types.
        cost: what may not grow.
        like: the divisions of another plan of the same program; None to search.
    """

    def __init__(
        self,
        graph: Graph,
        paths: Sequence[Path],
        dtypes: Sequence[Any],
        cost: costs.Cost,
        like: Cuts | None = None,
    ) -> None:
        self.graph, self._paths, self._dtypes, self._cost = graph, paths, dtypes, cost
        self.regions = Regions(graph, cost)
        self.groups = self.regions.divide(None if like is None else like.own)
        self._like = {} if like is None else like.inside
        self.leaves: dict[Node, Leaf] = {}
        self.loops: list[Loop] = []
        self.instructions: list[Replay | Merged | Loop] = []
        self._names = Names()
        self._light: list[Node] = []
        self._build()

    @property
    def cuts(self) -> Cuts:
        """The divisions, for another trace of the same program."""
        own = (value.producer for value in self.regions.cuts)
        inside = {loop.operation.number: loop.plan.cuts for loop in self.loops}
        return Cuts(frozenset(one.number for one in own if one is not None), inside)

    # Running.

    def fused_leaves(self, variables: Sequence[Any]) -> dict[Path, Any]:
        """The fused parameters of flat variables, by path."""
        values = evaluate(self.leaves, variables)
        result = {}
        for node, leaf in self.leaves.items():
            value = values[node]
            if leaf.dtype is not None:
                value = jnp.asarray(value).astype(leaf.dtype)
            result[leaf.path] = value
        return result

    def run(self, params: dict[Path, Any], inputs: Sequence[Any]) -> list[Any]:
        """Outputs for fused parameters and flat inputs."""
        known: Environment = dict(zip(self.graph.inputs, inputs, strict=True))
        for node, leaf in self.leaves.items():
            known[node] = params[leaf.path]
        for node in self._light:
            values = [known[operand] for operand in node.operands]
            if node.equation is not None:
                results = bind_as_traced(node.equation, values)
                known[node] = results if node.shape is None else results[0]
            else:
                known[node] = node.run(*values)
        for instruction in self.instructions:
            instruction.run(known)
        return [
            as_traced(known[output], output.dtype) if isinstance(output, Node) else known[output]
            for output in self.graph.outputs
        ]

    def signature(self) -> dict[Path, str]:
        """What the parameters are: equal for two plans iff one's serve the other."""
        return {leaf.path: f"{leaf.node.key} {leaf.dtype}" for leaf in self.leaves.values()}

    # Building.

    def _build(self) -> None:
        merged = {group.root: group for group in self.groups if group.merged}
        inside = {one for group in self.groups if group.merged for one in group.operations}
        needed: dict[Node, None] = {}
        for operation in self.graph.operations:
            if operation not in inside:
                loop = self._loop(operation) if operation.name == "scan" else None
                self.instructions.append(loop or Replay(operation))
                places = () if loop is None else loop.weights
                for place, operand in enumerate(operation.operands):
                    if isinstance(operand, Node) and place not in places:
                        needed[operand] = None
                needed.update(dict.fromkeys(() if loop is None else loop.leaves.values()))
            elif operation.result in merged:
                self.instructions.append(self._merged(merged[operation.result]))
        needed.update(dict.fromkeys(o for o in self.graph.outputs if isinstance(o, Node)))
        self._light = self._schedule(list(needed))

    def _merged(self, group: Group) -> Merged:
        assert group.form is not None
        root, layout = group.root, self.regions.layout
        spatial = any(one.name == "conv_general_dilated" for one in group.operations)
        heavy = None
        terms, modules = [], []
        everything = [one.node for _, one in group.form.terms]
        everything += [] if group.form.bias is None else [group.form.bias]
        dtype = self._stored(everything, root.dtype)
        for base, one in group.form.terms:
            kind, leaf = costs.kind(one, spatial=spatial), None
            if kind in {"convolution", "product"}:
                module = self._module([one.node])
                modules.append(module)
                leaf = self._kernel(one.node, one.shape.kernel_shape)
                self._keep(leaf, module, "kernel", self._stored([one.node], dtype))
            elif kind == "scale":
                assert one.scale is not None
                module = self._module([one.scale])
                leaf = one.scale
                self._keep(leaf, module, "scale", self._stored([leaf], dtype))
            terms.append(Term(base, kind, one.shape, layout(base), leaf))
        bias = group.form.bias
        if bias is not None:
            module = modules[0] if modules else self._module(everything)
            self._keep(bias, module, "bias", dtype)
        heaviest = [one for one in group.operations if one.name in costs.KERNELS]
        if heaviest:
            heavy = max(
                heaviest,
                key=lambda one: sum(k.macs for k in costs.written(one, layout(one.result))),
            )
            compute = heavy.data[0].dtype
            accumulate = heavy.params["preferred_element_type"] or heavy.result.dtype
            numbers = Numbers(compute, accumulate, heavy.params["precision"])
        else:
            numbers = Numbers(root.dtype, root.dtype, None)
        return Merged(root, tuple(terms), bias, layout(root), numbers)

    def _loop(self, operation: Operation) -> Loop | None:
        def path(node: Node) -> Path:
            return self._paths[min(node.leaves)]

        def plan_body(graph: Graph, paths: Sequence[Path], dtypes: Sequence[Any]) -> Plan:
            return Plan(graph, paths, dtypes, self._cost, self._like.get(operation.number))

        loop = read_loop(operation, path, plan_body)
        if loop is None:
            return None
        for leaf in loop.plan.leaves.values():
            node = outside_node(leaf, loop, self.graph.expressions)
            loop.leaves[leaf.path] = node
            if node.name == "scan":
                self._keep(node, leaf.path[:-1], leaf.path[-1], leaf.dtype)
        self.loops.append(loop)
        return loop

    def _kernel(self, node: Node, shape: tuple[int, ...]) -> Node:
        return self.graph.expressions.node(
            "kernel of", [node], lambda conv: conv.kernel, shape=shape
        )

    def module(self, group: Group) -> str:
        """The module a group belongs to: that of its variables, else of the program text."""
        nodes = [
            node for one in group.operations for node in one.operands if isinstance(node, Node)
        ]
        if any(node.leaves for node in nodes):
            heavy = [
                node
                for one in group.operations
                if one.name in costs.KERNELS
                for node in one.operands
                if isinstance(node, Node) and node.leaves
            ]
            indices = sorted({index for node in heavy or nodes for index in node.leaves})
            return "/".join(module_of([self._paths[index] for index in indices])) or "(root)"
        return group.operations[-1].path

    def _stored(self, nodes: Sequence[Node], otherwise: Any) -> Any:
        """The parameter type of the kernels, or of the vectors if there are none."""
        for which in ("kernels", "leaves"):
            found = [
                self._dtypes[index]
                for node in nodes
                for index in getattr(node, which)
                if is_float(self._dtypes[index])
            ]
            if found:
                return common_dtype(*found)
        return otherwise

    def _module(self, nodes: Sequence[Node]) -> Path:
        for which in ("kernels", "leaves"):
            found = sorted({index for node in nodes for index in getattr(node, which)})
            if found:
                return module_of([self._paths[index] for index in found])
        return ("constant",)

    def _keep(self, node: Node, module: Path, name: str, dtype: Any) -> None:
        if node not in self.leaves:
            self.leaves[node] = Leaf(self._names.take(module, name), node, dtype)

    def _schedule(self, needed: list[Node]) -> list[Node]:
        """Parameters that replayed operations read, and the weights to be worked out from them."""
        order: set[Node] = set()
        stack = list(reversed(needed))
        while stack:
            node = stack.pop()
            if node in self.leaves or node in order:
                continue
            if node.name == "leaf":
                path = self._paths[node.value]
                self._keep(node, path[:-1], path[-1], None)
            elif _is_kept(node):
                first = self._paths[min(node.kernels or node.leaves)]
                name = "kernel" if node.kernels else first[-1]
                self._keep(node, self._module([node]), name, self._stored([node], node.dtype))
            else:
                order.add(node)
                stack.extend(reversed(node.operands))
        return sorted(order, key=lambda node: node.number)


def _is_kept(node: Node) -> bool:
    """Whether a weight is worked out when fusing: a computation that does not spread it."""
    if not node.leaves or node.dtype is None or not is_float(node.dtype) or costs.is_light(node):
        return False
    sizes = [math.prod(operand.shape or ()) for operand in node.operands if operand.leaves]
    try:
        return bool(math.prod(node.shape or ()) <= sum(sizes)) or node.name == "part"
    except TypeError:
        return False
