"""`unfuse_params`: the way back, from a deploy tree to the branches of a block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from repjax.algebra import Conv, NotFusableError
from repjax.branches.branch import get
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
        A tree with the structure, shapes and dtypes of `like`.

    Raises:
        NotFusableError: in some blocks no branch can absorb the rest (no branch with the
            fused kernel's taps, no bias to hold the shift, a norm with scale zero); every
            path and reason is listed.
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
    for place in find.blocks(parts):
        node = get(given[home], *place.path)
        if isinstance(node, dict) and place.name in node:
            continue  # left unfused by only=
        if place.name in registered():
            problems.append(f"{place.at()}: a registered block cannot be unfused")
        elif (block := examine(place, problems)) is not None:
            blocks.append(block)
            problems += _target_problems(block, node)
    problems += _other_problems(parts, given, [block.place for block in blocks])
    raise_all(problems)
    absorbed = _absorb_all(blocks, given[home])
    changes = {path: _update(leaves) for path, leaves in absorbed.items()}
    result = {
        name: _take_others(find.rebuild(tree, changes), given.get(name, {}), set(absorbed), ())
        for name, tree in parts.items()
    }
    variables: dict[str, Any] = find.variables_of(result)
    return variables


def _absorb_all(blocks: list[Block], given: Any) -> dict[Path, dict[str, Any]]:
    """New leaves for every block, by the path of its node."""
    absorbed, reasons = {}, []
    for block in blocks:
        place, branch = block.place, block.branch
        target = _target(block, get(given, *place.path) if place.path else given)
        try:
            if not branch.can_absorb(target.axes, bias=target.bias is not None):
                size = "x".join(map(str, target.kernel_size))
                raise NotFusableError(f"no branch has {size} taps and a place for the bias")
            leaves = branch.absorb(target, place.arrays, block.inputs, block.groups)
            absorbed[(*place.path, place.name)] = leaves
        except NotFusableError as error:
            reasons.append(f"  {place.at()}: {error}")
    if reasons:
        raise NotFusableError("cannot unfuse:\n" + "\n".join(reasons))
    return absorbed


def _target(block: Block, node: Mapping[str, Any]) -> Conv:
    axes = block.branch.axes(block.dims)
    conv = Conv(
        node["kernel"],
        node.get("bias"),
        padding=[(axis.low, axis.high) for axis in axes],
        dilation=[axis.dilation for axis in axes],
        groups=block.groups,
    )
    return conv.astype(jnp.promote_types(conv.kernel.dtype, jnp.float32))


def _target_problems(block: Block, node: Any) -> list[str]:
    place = block.place
    where = find.text((*place.path, "kernel"))
    if not isinstance(node, dict) or "kernel" not in node:
        return [f"{where}: missing in the deploy tree"]
    axes = block.branch.axes(block.dims)
    features = block.branch.channels(place.arrays, block.inputs, block.groups, [])
    expected = (*(axis.taps for axis in axes), block.inputs // block.groups, features)
    problems = []
    if node["kernel"].shape != expected:
        problems.append(f"{where}: has shape {node['kernel'].shape}, expected {expected}")
    if ("bias" in node) != block.branch.has_bias:
        word = "missing" if block.branch.has_bias else "not expected"
        problems.append(f"{find.text((*place.path, 'bias'))}: {word} in the deploy tree")
    return problems


def _other_problems(parts: Any, given: Any, blocks: list[Place]) -> list[str]:
    """Leaves outside the blocks that only one of the trees has."""
    inside = {(*place.path, place.name) for place in blocks}
    fused = {(*place.path, leaf) for place in blocks for leaf in ("kernel", "bias")}
    problems = []
    for name in dict.fromkeys([*parts, *given]):
        have = _outside(parts.get(name, {}), inside)
        want = {path for path, _ in find.leaf_paths(given.get(name, {})) if path not in fused}
        label = () if name is None else (name,)
        problems += [f"{find.text((*label, *p))}: missing in the deploy tree" for p in have - want]
        problems += [f"{find.text((*label, *p))}: only in the deploy tree" for p in want - have]
    return sorted(problems)


def _outside(tree: Any, inside: set[Path]) -> set[Path]:
    paths = {path for path, _ in find.leaf_paths(tree)}
    return {p for p in paths if not any(p[: len(i)] == i for i in inside)}


def _update(new: Mapping[str, Any]) -> Any:
    def change(node: dict[Any, Any]) -> dict[Any, Any]:
        return {
            key: _update(new[key])(value) if isinstance(value, dict) else new.get(key, value)
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
