"""`unfuse_params`: the way back, from a deploy tree to the branches of a block."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from repjax.algebra import Conv, NotFusableError
from repjax.algebra.dtypes import fold_dtype
from repjax.branches import Branch
from repjax.branches.branch import get
from repjax.sharding import keep, sharding_of
from repjax.trees import find
from repjax.trees.compare import other_problems, target_problems
from repjax.trees.containers import TreePath, at, children, with_children
from repjax.trees.find import BlockNode
from repjax.trees.problems import CheckedBlock, examine_all, raise_all
from repjax.trees.register import unfolded
from repjax.trees.states import as_given


def unfuse_params(deployed: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
    """Give a deploy tree its branches back, for fine-tuning, pruning or quantization.

    In each block `like` supplies every branch but one; the KxK branch whose taps are those
    of the fused kernel absorbs the rest, so that the inference function of the result is
    exactly that of `deployed`, however `deployed` was edited. Everything outside blocks is
    taken from `deployed`. Pure; works under `jit`, `vmap` and `grad`.

    Args:
        deployed: a deploy tree, as `fuse_params` returns it.
        like: a multi-branch tree of the same network, freshly initialized or trained. What
            older versions grouped otherwise (`rename_params`) comes out as today's.

    Returns:
        A tree with the structure and shapes of `like`, and with its dtypes and shardings in
        the blocks; an `nnx.State` where `like` is one.

    Raises:
        NotFusableError: in some blocks no branch can absorb the rest (no branch with the
            fused kernel's taps, no bias to hold the shift, a norm with scale zero, a
            registered block without a way back); every path and reason is listed. Scales are
            checked only where they are concrete.
        MalformedTreeError: the trees are not of the same network.
        TypeError: one of the trees is no nested dict.

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
    parts, given = find.collections(like, "like"), find.collections(deployed, "deployed")
    if (None in parts) != (None in given):
        raise_all(["one tree has a 'params' collection, the other is bare; expected the same"])
    params = given[find.params_of(parts)]
    problems: list[str] = []
    # blocks that `only=` left unfused are taken as they are
    nodes = [
        node
        for node in find.blocks(parts, problems)
        if not isinstance(at(params, (*node.path, node.name)), dict)
    ]
    blocks, own = examine_all(nodes, problems)
    for block in blocks:
        problems += target_problems(block.node, at(params, block.node.path), _shapes(block))
    problems += other_problems(parts, given, nodes)
    raise_all(problems)
    absorbed = _absorb_all(blocks, own, params)
    changes = {path: _update(leaves) for path, leaves in absorbed.items()}
    result = {
        name: _take_others(find.rebuild(tree, changes), given.get(name, {}), set(absorbed), ())
        for name, tree in parts.items()
    }
    variables: dict[str, Any] = as_given(find.variables_of(result), like, deployed)
    return variables


def _shapes(block: CheckedBlock) -> dict[str, tuple[int, ...]]:
    """Shapes of the one convolution that a block is in the deploy tree."""
    kernel = {"kernel": (*block.taps, block.inputs // block.groups, block.features)}
    return kernel | ({"bias": (block.features,)} if block.branch.has_bias else {})


def _absorb_all(
    blocks: list[CheckedBlock], own: list[BlockNode], params: Any
) -> dict[TreePath, dict[str, Any]]:
    """New leaves for every block, by the path of its node."""
    absorbed, reasons = {}, []
    ways: list[tuple[BlockNode, Callable[[Any], dict[str, Any]]]]
    ways = [(block.node, functools.partial(_absorb, block)) for block in blocks]
    ways += [(node, functools.partial(unfolded, node.at(), node.name, node.arrays)) for node in own]
    for node, way in ways:
        try:
            absorbed[(*node.path, node.name)] = way(at(params, node.path))
        except NotFusableError as error:
            reasons.append(f"  {node.at()}: {error}")
    if reasons:
        raise NotFusableError("cannot unfuse:\n" + "\n".join(reasons))
    return absorbed


def _absorb(block: CheckedBlock, node: Mapping[str, Any]) -> dict[str, Any]:
    arrays, branch = jax.tree.map(jnp.asarray, block.node.arrays), block.branch
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


def _target(block: CheckedBlock, node: Mapping[str, Any]) -> Conv:
    axes = block.branch.axes(block.dims)
    return Conv(
        node["kernel"],
        node.get("bias"),
        padding=[(axis.low, axis.high) for axis in axes],
        dilation=[axis.dilation for axis in axes],
        groups=block.groups,
    )


def _update(new: Mapping[str, Any]) -> Any:
    def change(node: dict[Any, Any]) -> dict[Any, Any]:
        return {
            key: _update(new.get(key, {}))(value)
            if isinstance(value, dict)
            else new.get(key, value)
            for key, value in node.items()
        }

    return change


def _take_others(tree: Any, given: Any, blocks: set[TreePath], path: TreePath) -> Any:
    below = children(tree)
    if path in blocks:
        return tree
    if below is None:
        return given
    others = children(given) or {}
    return with_children(
        tree,
        {
            key: _take_others(value, others.get(key, {}), blocks, (*path, key))
            for key, value in below.items()
        },
    )
