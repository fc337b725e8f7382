"""`fuse`: from a function and its variables to the same function with fused parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from repjax.tracing import cost as costs
from repjax.tracing import graph as graphs
from repjax.tracing.expressions import Expressions
from repjax.tracing.naming import look_up, nested, variable_paths
from repjax.tracing.plan import Plan
from repjax.tracing.report import Report, describe


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
    that is exact, borders included. Everything else is replayed as written.

    Args:
        apply: ``apply(variables, *inputs)`` in inference mode; keyword arguments go through
            ``functools.partial``. Inputs and outputs are any pytrees.
        variables: any pytree of arrays or ``jax.ShapeDtypeStruct`` (Linen variables, an NNX or
            Equinox module, ...). Leaves that are no arrays are kept as they are.
        *inputs: examples of the inputs, arrays or ``jax.ShapeDtypeStruct``. Sizes in space
            matter for what is exact; others are tried when they come.
        cost: what may not grow. A number: multiply-accumulates that writing one element is
            worth, added to the multiply-accumulates of every kernel, per example. Or a
            function that prices a `repjax.tracing.cost.Kernel`.

    Returns:
        A `Fused` program: ``params``, ``apply``, ``fuse_params`` and ``report``.

    Raises:
        Exception: what JAX raises if `apply` cannot be traced.

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
    return Fused(apply, variables, inputs, cost)


class Fused:
    """A function on fused parameters, made by `fuse`.

    Attributes:
        params: the fused parameters, a nested dict of arrays named after the modules they
            came from (``stage1/block0/kernel``); abstract if the variables were.
        report: what was merged, what was not, and why.
    """

    params: Any
    report: Report

    def __init__(
        self, apply: Callable[..., Any], variables: Any, inputs: Sequence[Any], cost: costs.Cost
    ) -> None:
        self._apply, self._cost = apply, cost
        leaves, treedef = jax.tree.flatten(variables)
        self._treedef: Any = treedef
        self._static = [None if _is_array(leaf) else leaf for leaf in leaves]
        self._places = [place for place, leaf in enumerate(leaves) if _is_array(leaf)]
        paths = variable_paths(variables)
        self._paths = [paths[place] for place in self._places]
        self._specs = [_spec(leaves[place]) for place in self._places]
        call = _Call(inputs)
        self._first, out_tree = self._plan(call, None)
        self._plans: dict[Any, tuple[Plan, Any]] = {call.key: (self._first, out_tree)}
        self.report = describe(self._first)
        self.params = self._evaluate([leaves[place] for place in self._places])

    def fuse_params(self, variables: Any) -> dict[str, Any]:
        """Fused parameters of other variables of the same structure and shapes.

        A pure function of the arrays: works under ``jit``, ``vmap`` and ``grad``, and on
        sharded arrays. Arithmetic is in float32 at least.

        Args:
            variables: a tree like that given to `fuse`, arrays or ``ShapeDtypeStruct``.

        Raises:
            ValueError: structure or shapes differ (all problems are listed).
        """
        leaves, treedef = jax.tree.flatten(variables)
        if treedef != self._treedef:
            raise ValueError(
                f"variables have the structure {treedef}, expected that given to fuse: "
                f"{self._treedef}"
            )
        arrays = [leaves[place] for place in self._places]
        problems = [
            f"{'/'.join(path)} has shape {np.shape(leaf)}, expected {spec.shape}"
            for path, leaf, spec in zip(self._paths, arrays, self._specs, strict=True)
            if np.shape(leaf) != spec.shape
        ]
        if problems:
            raise ValueError("variables do not fit: " + "; ".join(problems))
        return self._evaluate(arrays)

    def apply(self, params: Any, *inputs: Any) -> Any:
        """The function on fused parameters.

        Other batch sizes, resolutions and types are planned once each, with the divisions of
        the first plan, and must lead to the same parameters. Works under ``jit``, ``vmap``,
        ``grad`` and ``jax.export``.

        Args:
            params: as `params` or from `fuse_params`.
            *inputs: as for the original function.

        Raises:
            ValueError: parameters are missing, or inputs of these sizes need others.
        """
        call = _Call(inputs)
        if call.key not in self._plans:
            found = self._plan(call, self._first)
            self._check_same(found[0], call)
            self._plans[call.key] = found
        plan, out_tree = self._plans[call.key]
        values = look_up(params, [leaf.path for leaf in plan.leaves.values()])
        return jax.tree.unflatten(out_tree, plan.run(values, call.arrays))

    def _plan(self, call: _Call, like: Plan | None) -> tuple[Plan, Any]:
        def flat(variables: Sequence[Any], arrays: Sequence[Any]) -> Any:
            leaves = list(self._static)
            for place, leaf in zip(self._places, variables, strict=True):
                leaves[place] = leaf
            return self._apply(jax.tree.unflatten(self._treedef, leaves), *call.rebuild(arrays))

        trace = jax.make_jaxpr(flat, return_shape=True)
        jaxpr, shapes = trace(self._specs, [_spec(array) for array in call.arrays])
        expressions = Expressions()
        weights = [
            expressions.leaf(index, spec.shape, spec.dtype)
            for index, spec in enumerate(self._specs)
        ]
        graph = graphs.read(jaxpr, [*weights, *[None] * len(call.arrays)], expressions)
        known = like is not None and like.graph.signature == graph.signature
        chosen = like.cuts if like is not None and known else None
        dtypes = [spec.dtype for spec in self._specs]
        return Plan(graph, self._paths, dtypes, self._cost, chosen), jax.tree.structure(shapes)

    def _evaluate(self, arrays: Sequence[Any]) -> dict[str, Any]:
        def evaluate(arrays: Sequence[Any]) -> dict[str, Any]:
            return nested(self._first.fused_leaves(arrays))

        if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in arrays):
            abstract: dict[str, Any] = jax.eval_shape(evaluate, [_spec(array) for array in arrays])
            return abstract
        return evaluate(arrays)

    def _check_same(self, plan: Plan, call: _Call) -> None:
        first, other = self._first.signature(), plan.signature()
        names = sorted(
            "/".join(path)
            for path in {*first, *other}
            if path in other and first.get(path) != other[path]
        )
        if names:
            shapes = [array.shape for array in call.arrays if hasattr(array, "shape")]
            raise ValueError(
                f"inputs of shapes {shapes} need other fused parameters than those fuse was "
                f"given: {', '.join(names)}. What is exact depends on the size (as 'SAME' "
                "padding with strides does); call repjax.fuse with inputs of these shapes."
            )


class _Call:
    """Flat inputs: arrays, and the rest that is part of the program."""

    def __init__(self, inputs: Sequence[Any]) -> None:
        self._leaves, self._treedef = jax.tree.flatten(tuple(inputs))
        self._places = [place for place, leaf in enumerate(self._leaves) if _is_input(leaf)]
        self.arrays = [self._leaves[place] for place in self._places]
        arrays = tuple(_signature(array) for array in self.arrays)
        rest = tuple(leaf for leaf in self._leaves if not _is_input(leaf))
        x64 = jax.dtypes.canonicalize_dtype(np.int64)
        self.key = (self._treedef, tuple(self._places), arrays, rest, str(x64))

    def rebuild(self, arrays: Sequence[Any]) -> tuple[Any, ...]:
        """The inputs with other arrays in their places."""
        leaves = list(self._leaves)
        for place, array in zip(self._places, arrays, strict=True):
            leaves[place] = array
        return tuple(jax.tree.unflatten(self._treedef, leaves))


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct)


def _is_input(leaf: Any) -> bool:
    return _is_array(leaf) or (isinstance(leaf, int | float | complex) and type(leaf) is not bool)


def _spec(leaf: Any) -> Any:
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return leaf
    aval = jax.typeof(leaf)
    spec: Any = jax.ShapeDtypeStruct
    return spec(aval.shape, aval.dtype, weak_type=aval.weak_type)


def _signature(leaf: Any) -> Any:
    spec = _spec(leaf)
    return spec.shape, spec.dtype, spec.weak_type
