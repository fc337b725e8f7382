"""`fuse_params`: the multi-branch blocks of a variables tree become single convolutions."""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping
from typing import Any

import jax

from repjax.algebra import NotFusableError
from repjax.trees import find
from repjax.trees.containers import GONE, TreePath, at, joined
from repjax.trees.find import BlockNode
from repjax.trees.fold import fold
from repjax.trees.problems import examine_all, raise_all
from repjax.trees.register import folded
from repjax.trees.states import as_given

Predicate = Callable[[str], bool]


def fuse_params(variables: Mapping[str, Any], *, only: Predicate | None = None) -> dict[str, Any]:
    """Turn the multi-branch blocks of a variables tree into single convolutions.

    A pure function: the result has the structure, shapes and dtypes of the deploy twin's
    variables. Blocks are found by the names of their nodes (`repjax.branches.grammar`), so
    that a tree is enough: no module, no sample input, no argument can be wrong. Works under
    `jit`, `vmap` (also over a stack of trees) and `grad`. The fold runs in float32 at least
    and is cast to the kernel's dtype last; sharded kernels keep their shardings.

    Args:
        variables: nested dict with `params`, and `batch_stats` where there is batch norm; or
            a bare `params` tree of blocks without norm; or an `nnx.State`, also in
            `nnx.to_pure_dict` form, statistics beside parameters. Blocks are found inside
            dicts, lists and tuples; FrozenDicts and boxed leaves (`nn.Partitioned`) are
            accepted, dicts and plain arrays are returned; of a state, a state.
        only: which blocks to fuse, by the path of the module ("stage1/block0"); all by
            default.

    Returns:
        The deploy tree, all its containers new. Arrays outside of blocks pass through, the
        same objects outside transformations (`jax.tree.map(jnp.copy, ...)` before donation);
        a deploy tree comes back equal.

    Raises:
        TypeError: `variables` is no nested dict (None, a list, a TrainState, a module), or
            `only` is no function; the message says what to pass.
        ValueError: the function of a registered block gives no kernel and bias.
        MalformedTreeError: a flattened tree, blocks inside a state of an optimizer, two copies
            of the parameters; or a block lacks what its name promises or holds something else; one
            error lists all. Values (statistics that are not finite, or negative
            variances) are checked only where they are concrete.
        NotFusableError: the functions of registered blocks refuse; every path and reason is
            listed.

    Source: Ding et al., RepVGG, CVPR 2021; as a pure function of the tree, here.

    Example:
        >>> import jax, repjax
        >>> block = repjax.blocks.ResidualConv(2)
        >>> variables = block.init(jax.random.key(0), jax.numpy.ones((1, 9, 9, 2)))
        >>> jax.tree.map(jax.numpy.shape, fuse_params(variables))
        {'params': {'bias': (2,), 'kernel': (3, 3, 2, 2)}}
    """
    require_predicate(only)
    parts = find.collections(variables, "variables")
    home = find.params_of(parts)
    problems: list[str] = []
    nodes = [
        node for node in find.blocks(parts, problems) if only is None or only(joined(node.path))
    ]
    blocks, own = examine_all(nodes, problems)
    problems += _collisions(nodes, parts[home])
    raise_all(problems)
    results = {block.node.path: (block.node, fold(block)) for block in blocks}
    results |= _fold_registered(own)
    for name, tree in parts.items():
        changes = {
            path: _replacement(node.name, leaves if name == home else None)
            for path, (node, leaves) in results.items()
        }
        parts[name] = find.rebuild(tree, changes)
    result: dict[str, Any] = as_given(find.variables_of(parts), variables)
    return result


def require_predicate(only: Any) -> None:
    """Refuse an `only` that is no function of a path.

    Raises:
        TypeError: `only` is not callable.
    """
    if only is not None and not callable(only):
        raise TypeError(
            f"only is a function from the path of a module to true or false, found {only!r}; "
            "for a list of paths: only=paths.__contains__"
        )


def _fold_registered(nodes: list[BlockNode]) -> dict[TreePath, Any]:
    results, reasons = {}, []
    for node in nodes:
        try:
            results[node.path] = (node, folded(node.at(), node.name, node.arrays))
        except NotFusableError as error:
            reasons.append(f"  {node.at()}: {error}")
    if reasons:
        raise NotFusableError("cannot fuse:\n" + "\n".join(reasons))
    return results


def _replacement(
    name: str, leaves: tuple[jax.Array, jax.Array | None] | None
) -> Callable[[dict[Any, Any]], Any]:
    def change(node: dict[Any, Any]) -> Any:
        if leaves is None and name not in node:
            return node
        rest = {key: value for key, value in node.items() if key != name}
        if leaves is not None:
            kernel, bias = leaves
            rest |= {"kernel": kernel} if bias is None else {"kernel": kernel, "bias": bias}
        return rest or GONE

    return change


def _collisions(nodes: list[BlockNode], params: Any) -> list[str]:
    problems = []
    count = collections.Counter(node.path for node in nodes)
    for node in nodes:
        if count[node.path] > 1:
            problems.append(f"{node.at()}: a second block beside it, expected one per module")
        module = at(params, node.path)
        taken = [name for name in ("kernel", "bias") if isinstance(module, dict) and name in module]
        if taken:
            problems.append(
                f"{node.at()}: its module has {' and '.join(taken)} of its own, where the fused "
                "ones would go"
            )
    return problems
