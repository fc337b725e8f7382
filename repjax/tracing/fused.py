"""`fuse`: from a function and its variables to the same function with fused parameters."""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from repjax.leaves import Leaves
from repjax.tracing.call import Call, spec_of
from repjax.tracing.plan import cost as costs
from repjax.tracing.plan.build import make_plan, written_plan
from repjax.tracing.plan.fold import Fold
from repjax.tracing.plan.parameters import Variable, nested, values_at, variable_paths
from repjax.tracing.plan.plan import Plan
from repjax.tracing.program.program import Program, read
from repjax.tracing.program.weights import Weights
from repjax.tracing.report import Report, describe
from repjax.tracing.surprises import kept_as_written

_PLANS_KEPT = 16


def fuse(
    apply: Callable[..., Any],
    variables: Any,
    *inputs: Any,
    cost: costs.Cost = costs.ELEMENT_COST,
) -> Fused:
    """Find what is fusable in any JAX function, and fuse it where that is not dearer.

    The function is traced once, never run. Convolutions, products over the channels, batch
    norm in inference, scales and shifts, identities, padding, crops, strides, average pools
    and stacks of channels that meet in sums and chains become single convolutions wherever
    that is exact, borders included: a shift that meets zero padding becomes a bias map, a
    small kernel that says what the border sees of it. Everything else is replayed as written.

    Args:
        apply: ``apply(variables, *inputs)`` in inference mode; keyword arguments go through
            ``functools.partial``. Inputs and outputs are any pytrees.
        variables: any pytree of arrays or ``jax.ShapeDtypeStruct`` (Linen variables, an NNX or
            Equinox module, ...). Leaves that are no arrays are kept as they are.
        *inputs: examples of the inputs, arrays or ``jax.ShapeDtypeStruct``. Sizes in space
            matter for what is exact; others are tried when they come. With a symbolic size
            (`jax.export.symbolic_shape`) what is exact for every size is merged.
        cost: what may not grow. A number: multiply-accumulates that writing one element is
            worth, added to the multiply-accumulates of every kernel, per example. Or a
            function that prices a `repjax.tracing.plan.cost.Kernel`.

    Returns:
        A `Fused` program: ``params``, ``apply``, ``fuse_params`` and ``report``.

    Raises:
        Exception: what JAX raises if `apply` cannot be traced.
        ValueError: `cost` is no price.

    Source: the merging of branches is that of Ding et al., RepVGG, CVPR 2021, and Diverse
        Branch Block, CVPR 2021, here found in the program instead of in class names.

    Example:
        >>> import jax.numpy as jnp
        >>> def net(w, x):
        ...     y = jax.lax.conv(x, w["three"], (1, 1), "SAME") + x
        ...     return jax.nn.relu(y + jax.lax.conv(x, w["one"], (1, 1), "SAME"))
        >>> w = {"three": jnp.ones((2, 2, 3, 3)), "one": jnp.ones((2, 2, 1, 1))}
        >>> fused = fuse(net, w, jnp.ones((1, 2, 4, 4)))
        >>> fused.report.totals.kernels
        {'conv': 1}
        >>> bool((fused.apply(fused.params, jnp.ones((1, 2, 4, 4))) > 0).all())
        True
    """
    if not callable(cost) and not 0 <= cost < float("inf"):
        raise ValueError(
            f"cost is {cost!r}, expected the price of writing one element, a number of at least 0 "
            "(1.0 by default), or a function of a repjax.tracing.plan.cost.Kernel"
        )
    return Fused(apply, variables, inputs, cost)


class Fused:
    """A function on fused parameters, made by `fuse`.

    Args:
        params: the fused parameters, a nested dict of arrays named after the modules they
            came from (``stage1/block0/kernel``); abstract if the variables were. Variables
            that nothing was merged with are in it as the same objects: before donating it to
            a jitted function, copy it with ``jax.tree.map(jnp.copy, fused.params)``.
        report: what was merged, what was not, and why.
    """

    params: Any
    report: Report

    def __init__(
        self, apply: Callable[..., Any], variables: Any, inputs: Sequence[Any], cost: costs.Cost
    ) -> None:
        self._apply, self._cost = apply, cost
        self._leaves = Leaves(variables)
        paths = variable_paths(variables)
        self._specs = [spec_of(array) for array in self._leaves.arrays]
        self._variables = [
            Variable(paths[place], spec.shape, spec.dtype)
            for place, spec in zip(self._leaves.places, self._specs, strict=True)
        ]
        call = Call(inputs)
        program, out_tree = self._read(call)
        problem = None
        try:
            self._first = make_plan(program, self._variables, cost)
            self._start(call, out_tree)
        except Exception as error:
            problem = kept_as_written("the whole program", error)
            self._first = written_plan(program, self._variables, cost)
            self._start(call, out_tree)
        self.report = describe(self._first, problem)

    def _start(self, call: Call, out_tree: Any) -> None:
        """Fold the variables, and see that the plan can be traced."""
        self._plans = collections.OrderedDict([(call.key, (self._first, out_tree))])
        self._fold = Fold(self._first.parameters)
        specs = self._fold.abstract(self._specs)
        self._shapes = {path: spec.shape for path, spec in specs.items()}
        jax.eval_shape(self._first.run, specs, call.specs)
        self.params = nested(self._fold(self._leaves.arrays))

    def __repr__(self) -> str:
        totals = self.report.totals
        before, after = (
            ", ".join(
                f"{counts[name]} {name}" for name in ("conv", "dot", "pool") if name in counts
            )
            for counts in (totals.operations, totals.kernels)
        )
        name = getattr(self._apply, "__qualname__", type(self._apply).__name__)
        return f"Fused({name}: {before or 'nothing to fuse'} → {after or 'as written'})"

    def fuse_params(self, variables: Any) -> dict[str, Any]:
        """Fused parameters of other variables of the same structure and shapes.

        A pure function of the arrays: works under ``jit``, ``vmap`` and ``grad``, and on
        sharded arrays, whose shardings carry over. Arithmetic is in float32 at least.

        Args:
            variables: a tree like that given to `fuse`, arrays or ``ShapeDtypeStruct``.

        Raises:
            ValueError: structure or shapes differ (all problems are listed).
        """
        leaves, treedef = jax.tree.flatten(variables)
        if treedef != self._leaves.treedef:
            raise ValueError(
                f"variables have the structure {treedef}, expected that given to fuse: "
                f"{self._leaves.treedef}"
            )
        arrays = [leaves[place] for place in self._leaves.places]
        problems = [
            f"{'/'.join(one.path)} has shape {np.shape(leaf)}, expected {one.shape}"
            for one, leaf in zip(self._variables, arrays, strict=True)
            if np.shape(leaf) != one.shape
        ]
        if problems:
            raise ValueError("variables do not fit: " + "; ".join(problems))
        return nested(self._fold(arrays))

    def apply(self, params: Any, *inputs: Any) -> Any:
        """The function on fused parameters.

        Other batch sizes, resolutions and types are planned once each (the last 16 plans are
        kept), divided as the first one where the program is the same, and must lead to the
        same parameters. Works under
        ``jit``, ``vmap``, ``grad`` and ``jax.export``.

        Args:
            params: as `params` or from `fuse_params`; types may differ, shapes may not.
            *inputs: as for the original function.

        Raises:
            ValueError: parameters are missing or have other shapes, or inputs of these sizes
                need other parameters.
        """
        call = Call(inputs)
        if call.key not in self._plans:
            self._plans[call.key] = self._plan_alike(call)
            while len(self._plans) > _PLANS_KEPT:
                self._plans.popitem(last=False)
        self._plans.move_to_end(call.key)
        plan, out_tree = self._plans[call.key]
        values = values_at(params, {one.path: self._shapes[one.path] for one in plan.parameters})
        return jax.tree.unflatten(out_tree, plan.run(values, call.arrays))

    def _read(self, call: Call) -> tuple[Program, Any]:
        def flat(variables: Sequence[Any], arrays: Sequence[Any]) -> Any:
            return self._apply(self._leaves.rebuild(variables), *call.rebuild(arrays))

        trace = jax.make_jaxpr(flat, return_shape=True)
        jaxpr, shapes = trace(self._specs, call.specs)
        weights = Weights()
        variables = [
            weights.variable(index, one.shape, one.dtype)
            for index, one in enumerate(self._variables)
        ]
        program = read(jaxpr, [*variables, *[None] * len(call.arrays)], weights)
        return program, jax.tree.structure(shapes)

    def _plan_alike(self, call: Call) -> tuple[Plan, Any]:
        """The plan for other sizes."""
        program, out_tree = self._read(call)
        alike = program.outline == self._first.program.outline
        like = self._first.decisions if alike else None
        try:
            plan = make_plan(program, self._variables, self._cost, like)
        except ValueError as error:
            raise self._other_parameters(call, f"here {error}") from error
        first, other = self._first.signatures(), plan.signatures()
        differing = [path for path in other if first.get(path) != other[path]]
        if differing:
            names = ", ".join("/".join(path) for path in sorted(differing)[:10])
            raise self._other_parameters(call, f"what is merged there has other numbers: {names}")
        return plan, out_tree

    def _other_parameters(self, call: Call, reason: str) -> ValueError:
        shapes = [array.shape for array in call.arrays if hasattr(array, "shape")]
        return ValueError(
            f"inputs of shapes {shapes} need other fused parameters than those fuse was given: "
            f"{reason}. Call repjax.fuse with inputs of these shapes."
        )
