"""The state of an optimizer, carried on when branches are added or folded on the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from repjax.branches import Sum, parse
from repjax.trees import find
from repjax.trees.containers import TreePath, at, leaf_paths
from repjax.trees.find import BlockNode
from repjax.trees.fuse import fuse_params

MOMENTUM = ("trace", "mu")
"""Fields of optax states that are linear in the gradients, and so fold like the parameters."""


def carry_state(
    optimizer: optax.GradientTransformation,
    state: Any,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
) -> Any:
    """The state of an optimizer for a tree to which branches were added, or that was folded.

    Added: the kernel that moved into a node keeps its state, the new branches start fresh.
    Folded: momentum (`trace`, `mu`) is folded by the derivative of the fold, as the
    parameters move; second moments of the folded kernels restart at zero, for those of a sum
    are not known. Counts, and the state of everything else, go on.

    Args:
        optimizer: whose state it is.
        state: its state for `old`.
        old: the tree before, all of its collections where the fold needs them.
        new: the tree after.

    Returns:
        A state for `new`.

    Raises:
        ValueError: `state` is not that of this optimizer on `old`.

    Example:
        >>> import repjax
        >>> from repjax.branches import Pointwise
        >>> plain = {"conv": {"kernel": jnp.ones((3, 3, 2, 2))}}
        >>> wide = repjax.add_branches(plain, (Pointwise(),), jax.random.key(0))
        >>> optimizer = optax.sgd(0.1, momentum=0.9)
        >>> state = carry_state(optimizer, optimizer.init(plain), plain, wide)
        >>> jax.tree.structure(state) == jax.tree.structure(optimizer.init(wide))
        True
    """
    before, after, parts = old, new, find.collections(old, "old")
    if not _fits(optimizer, state, before) and "params" in old:
        before, after = old["params"], new["params"]
    if not _fits(optimizer, state, before):
        raise ValueError(
            "state is not what this optimizer has for `old`; pass the optimizer and the tree it "
            "was initialized with"
        )
    home = () if before is not old or None in parts else ("params",)
    moved = {(*home, *p): (*home, *q) for p, q in _moves(old, new).items()}
    folded = _folded_nodes(old, new)
    kept: dict[TreePath, Any] = {_keys(path): leaf for path, leaf in _leaves(state)}
    fresh = optimizer.init(after)
    leaves: list[Any] = []
    for path, leaf in _leaves(fresh):
        keys = _keys(path)
        head, place = _split(keys, after)
        source = (*head, *moved.get(place, place))
        if source in kept and jnp.shape(kept[source]) == jnp.shape(leaf):
            leaves.append(kept[source])
        elif set(head) & set(MOMENTUM) and place[len(home) : -1] in folded:
            node = folded[place[len(home) : -1]]
            leaves.append(_folded(old, node, kept, (*head, *home), place[-1]).astype(leaf.dtype))
        else:
            leaves.append(leaf)
    return jax.tree.unflatten(jax.tree.structure(fresh), leaves)


def _fits(optimizer: optax.GradientTransformation, state: Any, tree: Any) -> bool:
    wanted = jax.eval_shape(optimizer.init, tree)
    structures: list[Any] = [jax.tree.structure(tree) for tree in (wanted, state)]
    if structures[0] != structures[1]:
        return False
    pairs = zip(jax.tree.leaves(wanted), jax.tree.leaves(state), strict=True)
    return all(jnp.shape(one) == jnp.shape(two) for one, two in pairs)


def _moves(old: Any, new: Any) -> dict[TreePath, TreePath]:
    """For the kernel and bias of each node that is new, where they were before."""
    moves = {}
    parts, before = find.collections(new, "new"), find.collections(old, "old")
    params = before[find.params_of(before)]
    for node in find.blocks(parts, []):
        module = at(params, node.path)
        if not isinstance(module, dict) or "kernel" not in module or node.name in module:
            continue
        branch = parse(node.name)
        own = (next(iter(branch.named())),) if isinstance(branch, Sum) else ()
        for name in ("kernel", "bias"):
            if name in module:
                moves[(*node.path, node.name, *own, name)] = (*node.path, name)
    return moves


def _folded_nodes(old: Any, new: Any) -> dict[TreePath, BlockNode]:
    """The nodes of the old tree that the new one has no longer, by the paths of their modules."""
    parts = find.collections(new, "new")
    return {
        node.path: node
        for node in find.blocks(find.collections(old, "old"), [])
        if at(parts[find.params_of(parts)], (*node.path, node.name)) is None
    }


def _folded(
    old: Any, node: BlockNode, kept: Mapping[TreePath, Any], head: TreePath, name: str
) -> jax.Array:
    """Momentum of a folded kernel or bias: the fold's derivative along that of the branches."""
    parts = find.collections(old, "old")
    home = find.params_of(parts)
    place = (*node.path, node.name)
    values = dict(leaf_paths(at(parts[home], place)))
    momentum = {
        path: kept.get((*head, *place, *path), jnp.zeros_like(value)).astype(value.dtype)
        for path, value in values.items()
    }
    others = {part: at(tree, place) for part, tree in parts.items()}

    def fold(arrays: dict[TreePath, Any]) -> Any:
        both = others | {home: _nested(arrays)}
        tree = {part: {node.name: inside} for part, inside in both.items() if inside is not None}
        fused = find.collections(fuse_params(find.variables_of(tree)), "fused")
        return fused[home][name]

    moved: jax.Array = jax.jvp(fold, (values,), (momentum,))[1]
    return moved


def _nested(arrays: Mapping[TreePath, Any]) -> dict[Any, Any]:
    tree: dict[Any, Any] = {}
    for path, value in arrays.items():
        node = tree
        for name in path[:-1]:
            node = node.setdefault(name, {})
        node[path[-1]] = value
    return tree


def _leaves(tree: Any) -> list[tuple[Any, Any]]:
    return jax.tree_util.tree_flatten_with_path(tree)[0]


def _keys(path: Any) -> TreePath:
    return tuple(next(getattr(e, n) for n in ("key", "name", "idx") if hasattr(e, n)) for e in path)


def _split(keys: TreePath, params: Any) -> tuple[TreePath, TreePath]:
    """A path in a state, as what leads to a tree like the parameters and a path in that."""
    for start in range(len(keys)):
        if at(params, keys[start:]) is not None:
            return keys[:start], keys[start:]
    return keys, ()
