"""Every block of a tree against its fold, in float64 on random data."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import repjax
from repjax.blocks import RepConv
from repjax.trees import find
from repjax.trees.containers import children, joined
from repjax.trees.problems import examine_all, raise_all

BOUND = 1e-10
"""Of the largest output: rounding of float64 stays far below, a wrong fold far above."""


@dataclasses.dataclass(frozen=True)
class NodeCheck:
    """How far a block and its fold are apart.

    Args:
        path: of the block's module.
        name: of its node.
        error: largest difference over largest output; None where a user's own block has only
            a fold, which nothing can be compared with.
    """

    path: str
    name: str
    error: float | None

    @property
    def exact(self) -> bool:
        """Whether the fold is right, or cannot be compared."""
        return self.error is None or self.error <= BOUND


def check_nodes(variables: Mapping[str, Any]) -> list[NodeCheck]:
    """Run every block of a tree as its branches and as its fold.

    Args:
        variables: as `repjax.fuse_params` takes them.

    Raises:
        repjax.MalformedTreeError: a block is damaged.
    """
    parts = find.collections(variables, "variables")
    problems: list[str] = []
    blocks, own = examine_all(find.blocks(parts, problems), problems)
    raise_all(problems)
    found = [NodeCheck(joined(node.path), node.name, None) for node in own]
    for block in blocks:
        module = RepConv(
            block.features,
            (block.branch,),
            norm=None,
            dims=block.dims,
            groups=block.groups,
            param_dtype=jnp.float64,
        )
        collections = {
            name: {block.node.name: at}
            for name, tree in parts.items()
            if (at := _at(tree, (*block.node.path, block.node.name))) is not None
        }
        held = {name or "params": tree for name, tree in collections.items()}
        shape = (2, *(taps + 4 for taps in block.taps), block.inputs)
        random = np.random.default_rng(0).normal(size=shape)
        with jax.enable_x64(True):
            wide = jax.tree.map(_wide, held)
            error = float(_apart(module, wide, jnp.asarray(random)))
        found.append(NodeCheck(joined(block.node.path), block.node.name, error))
    return found


@functools.partial(jax.jit, static_argnums=0)
def _apart(module: RepConv, variables: Any, x: jax.Array) -> jax.Array:
    many: Any = module.apply(variables, x)
    one: Any = module.deploy().apply(repjax.fuse_params(variables), x)
    return jnp.max(jnp.abs(many - one)) / jnp.max(jnp.abs(many))


def _wide(leaf: Any) -> jax.Array:
    array = np.asarray(leaf)
    return jnp.asarray(array, jnp.float64 if jnp.issubdtype(array.dtype, jnp.floating) else None)


def _at(tree: Any, path: tuple[Any, ...]) -> Any:
    for name in path:
        items = children(tree) or {}
        if name not in items:
            return None
        tree = items[name]
    return tree
