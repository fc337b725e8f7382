"""`unfuse_params`: the way back, from a deploy tree to the branches of a block."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from repjax.algebra import Conv, NotFusableError
from repjax.algebra.dtypes import fold_dtype
from repjax.branches import Branch
from repjax.branches.branch import get
from repjax.sharding import keep, sharding_of
from repjax.trees import find
from repjax.trees.find import Path, Place
from repjax.trees.problems import Block, examine, raise_all
from repjax.trees.register import registered


def unfuse_params(deployed: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
    """Give a deploy tree its branches back, for fine-tuning, pruning or quantisation.

    In each block `like` supplies every branch but one; the KxK branch whose taps are those
    of the fused kernel absorbs the rest, so that the inference function of the result is
    exactly that of `deployed`, however `deployed` was edited. Everything outside blocks is
    taken from `deployed`. Pure; works under `jit`, `vmap` and `grad`.

    Args:
        deployed: a deploy tree, as `fuse_params` returns it.
        like: a multi-branch tree of the same network, freshly initialised or trained.

    Returns:
        A tree with the structure and shapes of `like`, and with its dtypes and shardings in
        the blocks.

    Raises:
        NotFusableError: in some blocks no branch can absorb the rest (no branch with the
            fused kernel's taps, no bias to hold the shift, a norm with scale zero); every
            path and reason is listed. A scale is looked at only where it is concrete.
        MalformedTreeError: the trees are not of the same network.

    Example:
        >>> import jax, repjax
        >>> import jax.numpy as jnp
        >>> block = repjax.blocks.ResidualConv(2)
        >>> like = block.init(jax.random.key(0), jnp.ones((1, 9, 9, 2)))
        >>> deployed = jax.tree.map(jnp.ones_like, repjax.fuse_params(like))
        >>> again = repjax.fuse_params(unfuse_params(deployed, like))
        >>> bool(jnp.allclose(again["params"]["kernel"], 1, atol=1e-6))
        True
    """
    parts, given = find.collections(like), find.collections(deployed)
    home = None if None in parts else "params"
    problems: list[str] = []
    if (None in parts) != (None in given):
        raise_all(["one tree has a 'params' collection, the other is bare; expected the same"])
    blocks: list[Block] = []
    places = [place for place in find.blocks(parts) if not _has(given[home], place)]
    for place in places:
        node = get(given[home], *place.path)
        if place.name in registered():
            problems.append(f"{place.at()}: a registered block cannot be unfused")
        elif (block := examine(place, problems)) is not None:
            blocks.append(block)
            problems += _target_problems(block, node)
    problems += _other_problems(parts, given, places)
    raise_all(problems)
    absorbed = _absorb_all(blocks, given[home])
    changes = {path: _update(leaves) for path, leaves in absorbed.items()}
    result = {
        name: _take_others(find.rebuild(tree, changes), given.get(name, {}), set(absorbed), ())
        for name, tree in parts.items()
    }
    variables: dict[str, Any] = find.variables_of(result)
    return variables


def _has(tree: Any, place: Place) -> bool:
    """Whether a block is there unfused (`only=` left it out)."""
    return isinstance(get(tree, *place.path, place.name), dict)


def _absorb_all(blocks: list[Block], given: Any) -> dict[Path, dict[str, Any]]:
    """New leaves for every block, by the path of its node."""
    absorbed, reasons = {}, []
    for block in blocks:
        place = block.place
        try:
            absorbed[(*place.path, place.name)] = _absorb(block, get(given, *place.path))
        except NotFusableError as error:
            reasons.append(f"  {place.at()}: {error}")
    if reasons:
        raise NotFusableError("cannot unfuse:\n" + "\n".join(reasons))
    return absorbed


def _absorb(block: Block, node: Mapping[str, Any]) -> dict[str, Any]:
    arrays, branch = jax.tree.map(jnp.asarray, block.place.arrays), block.branch
    target = _target(block, node)
    target = target.astype(fold_dtype(*(leaf.dtype for leaf in jax.tree.leaves((target, arrays)))))
    if not branch.can_absorb(target.axes, bias=target.bias is not None):
        size = "x".join(map(str, target.kernel_size))
        raise NotFusableError(f"no branch has {size} taps and a place for the bias")
    run = functools.partial(_absorb_arrays, branch, block.inputs, block.groups)
    shardings = jax.tree_util.tree_map_with_path(
        lambda path, _: sharding_of(get(arrays, *(key.key for key in path))),
        jax.eval_shape(run, *jax.tree.map(_abstract, (target, arrays))),
    )
    leaves: dict[str, Any] = keep(run, shardings, target, arrays)
    if not _finite(leaves):
        branch.absorb(target, arrays, block.inputs, block.groups)  # says which scale is zero
    return leaves


@functools.partial(jax.jit, static_argnums=(0, 1, 2), inline=True)
def _absorb_arrays(
    branch: Branch, inputs: int, groups: int, target: Conv, arrays: Mapping[str, Any]
) -> dict[str, Any]:
    return branch.absorb(target, arrays, inputs, groups)


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    """Shape and type of a leaf without its sharding."""
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)  # type: ignore[no-untyped-call]


def _finite(leaves: Any) -> bool:
    concrete = (leaf for leaf in jax.tree.leaves(leaves) if not isinstance(leaf, jax.core.Tracer))
    return all(bool(jnp.isfinite(leaf).all()) for leaf in concrete)


def _target(block: Block, node: Mapping[str, Any]) -> Conv:
    axes = block.branch.axes(block.dims)
    return Conv(
        node["kernel"],
        node.get("bias"),
        padding=[(axis.low, axis.high) for axis in axes],
        dilation=[axis.dilation for axis in axes],
        groups=block.groups,
    )


def _target_problems(block: Block, node: Any) -> list[str]:
    place = block.place
    if not isinstance(node, dict):
        return [f"{find.text(place.path)}: missing in the deploy tree"]
    axes = block.branch.axes(block.dims)
    features = block.branch.channels(place.arrays, block.inputs, block.groups, [])
    wanted = {"kernel": (*(axis.taps for axis in axes), block.inputs // block.groups, features)}
    wanted |= {"bias": (features,)} if block.branch.has_bias else {}
    problems = []
    for name in ("kernel", "bias"):
        where = find.text((*place.path, name))
        if (name in node) != (name in wanted):
            word = "missing" if name in wanted else "not expected"
            problems.append(f"{where}: {word} in the deploy tree")
        elif name in wanted and jnp.shape(node[name]) != wanted[name]:
            problems.append(f"{where}: has shape {jnp.shape(node[name])}, expected {wanted[name]}")
    return problems


def _other_problems(parts: Any, given: Any, blocks: list[Place]) -> list[str]:
    """Leaves outside the blocks that only one of the trees has, or of another shape."""
    inside = {(*place.path, place.name) for place in blocks}
    fused = {(*place.path, leaf) for place in blocks for leaf in ("kernel", "bias")}
    problems = []
    for name in dict.fromkeys([*parts, *given]):
        have = {
            path: leaf
            for path, leaf in find.leaf_paths(parts.get(name, {}))
            if not any(path[: len(node)] == node for node in inside)
        }
        want = {p: leaf for p, leaf in find.leaf_paths(given.get(name, {})) if p not in fused}
        for path in sorted(have.keys() | want.keys(), key=str):
            where = find.text(path if name is None else (name, *path))
            if path not in want:
                problems.append(f"{where}: missing in the deploy tree")
            elif path not in have:
                problems.append(f"{where}: only in the deploy tree")
            elif jnp.shape(have[path]) != jnp.shape(want[path]):
                shapes = jnp.shape(want[path]), jnp.shape(have[path])
                problems.append(f"{where}: has shape {shapes[0]}, expected {shapes[1]}")
    return problems


def _update(new: Mapping[str, Any]) -> Any:
    def change(node: dict[Any, Any]) -> dict[Any, Any]:
        return {
            key: _update(new.get(key, {}))(value)
            if isinstance(value, dict)
            else new.get(key, value)
            for key, value in node.items()
        }

    return change


def _take_others(tree: Any, given: Any, blocks: set[Path], path: Path) -> Any:
    if path in blocks:
        return tree
    if not isinstance(tree, dict):
        return given
    return {
        key: _take_others(value, given.get(key, {}), blocks, (*path, key))
        for key, value in tree.items()
    }
