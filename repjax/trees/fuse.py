"""`fuse_params`: the multi-branch blocks of a variables tree become single convolutions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax

from repjax.algebra import NotFusableError
from repjax.branches.branch import get
from repjax.trees import find
from repjax.trees.find import Path, Place
from repjax.trees.fold import fold
from repjax.trees.problems import Block, examine, raise_all
from repjax.trees.register import registered

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
            a bare `params` tree of blocks without norm; or an NNX state in
            `nnx.to_pure_dict` form, statistics beside parameters. FrozenDicts and boxed
            leaves (`nn.Partitioned`) are accepted; dicts and plain arrays are returned.
        only: which blocks to fuse, by the path of the module ("stage1/block0"); all by
            default.

    Returns:
        The deploy tree. What is not a block passes through, the same objects outside
        transformations; a deploy tree comes back unchanged.

    Raises:
        MalformedTreeError: a block lacks what its name promises or holds something else; one
            error lists every place. Values (statistics that are not finite, or negative
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
    parts = find.collections(variables)
    problems: list[str] = []
    sound: list[Block] = []
    own: list[Place] = []
    chosen = [place for place in find.blocks(parts) if only is None or only(find.text(place.path))]
    for place in chosen:
        if place.name in registered():
            own.append(place)
        elif (block := examine(place, problems)) is not None:
            sound.append(block)
    problems += _collisions(chosen, parts)
    raise_all(problems)
    results = {block.place.path: (block.place, fold(block)) for block in sound}
    results |= _fold_registered(own)
    for home, tree in parts.items():
        changes = {
            path: _replacement(place.name, leaves if home == _params_home(parts) else None)
            for path, (place, leaves) in results.items()
        }
        parts[home] = find.rebuild(tree, changes)
    result: dict[str, Any] = find.variables_of(parts)
    return result


def _fold_registered(places: list[Place]) -> dict[Path, Any]:
    folded, reasons = {}, []
    for place in places:
        try:
            kernel, bias = registered()[place.name](place.arrays)
            folded[place.path] = (place, (kernel, bias))
        except NotFusableError as error:
            reasons.append(f"  {place.at()}: {error}")
    if reasons:
        raise NotFusableError("cannot fuse:\n" + "\n".join(reasons))
    return folded


def _params_home(parts: Mapping[str | None, Any]) -> str | None:
    return None if None in parts else "params"


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
        return rest or find.GONE

    return change


def _collisions(places: list[Place], parts: Mapping[str | None, Any]) -> list[str]:
    problems = []
    paths = [place.path for place in places]
    for place in places:
        if paths.count(place.path) > 1:
            problems.append(f"{place.at()}: a second block beside it, expected one per module")
        params = get(parts[_params_home(parts)], *place.path) if place.path else None
        node = params if place.path else parts[_params_home(parts)]
        taken = [name for name in ("kernel", "bias") if isinstance(node, dict) and name in node]
        if taken:
            problems.append(
                f"{place.at()}: its module has {' and '.join(taken)} of its own, where the fused "
                "ones would go"
            )
    return problems
