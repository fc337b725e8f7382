"""NNX states at the tree door: read as nested dicts, results given back as states.

Nothing here imports NNX: who holds a state has imported it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from repjax.sharding import aligned


def is_a(name: str, thing: Any) -> bool:
    """Whether something is of that class of `flax.nnx`.

    Example:
        >>> is_a("State", {})
        False
    """
    nnx = sys.modules.get("flax.nnx")
    return nnx is not None and isinstance(thing, getattr(nnx, name))


def as_given(result: Any, *given: Any) -> Any:
    """A tree of dicts, as a state where a state was given first; other trees as they are.

    Arrays at the path of a variable of the given states become variables of its kind, with
    its metadata. New ones become variables like the kernel that they replace or stand beside,
    the largest between the same channels, with the names of its axes' mesh axes; parameters
    where no kernel was. In states of bare arrays they stay arrays.

    Args:
        result: nested dicts of arrays.
        *given: what the caller was given; kinds are taken from the first that has the path.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> given = nnx.State({"var": nnx.BatchStat(jnp.ones(2))})
        >>> state = as_given({"kernel": jnp.ones(3), "var": jnp.ones(2)}, given)
        >>> [(name, type(leaf).__name__) for name, leaf in state.items()]
        [('kernel', 'Param'), ('var', 'BatchStat')]
    """
    if not given or not is_a("State", given[0]):
        return result
    from flax import nnx

    boxed = any(is_a("Variable", leaf) for state in given for _, leaf in _leaves(state))

    def variable(name: Any, leaf: Any, old: list[Any], replaced: list[Any]) -> Any:
        known = next((node for node in old if not isinstance(node, Mapping)), None)
        if known is None and not replaced:
            return nnx.Param(leaf) if boxed else leaf
        like = _closest(replaced, name, leaf.shape) if known is None else known
        if not is_a("Variable", like):
            return leaf
        metadata = {**like.get_metadata()}
        if known is None and metadata.get("out_sharding"):
            metadata["out_sharding"] = aligned(metadata["out_sharding"], like.shape, leaf.shape)
        return type(like).from_metadata(leaf, metadata)

    def walk(name: Any, node: Any, old: list[Any], above: list[Any]) -> Any:
        if not isinstance(node, dict):
            return variable(name, node, old, above)
        inside = [tree for tree in old if isinstance(tree, Mapping)]
        replaced = [leaf for tree in inside for leaf in _replaced(tree, node)] or above
        return {
            key: walk(key, value, [tree[key] for tree in inside if key in tree], replaced)
            for key, value in node.items()
        }

    return nnx.State(walk(None, result, list(given), []))


def _replaced(module: Mapping[Any, Any], new: Mapping[Any, Any]) -> list[tuple[Any, Any]]:
    """The kernels of what is no longer in a module, and its own bias, each with its name."""
    gone = {key: module[key] for key in module if key not in new}
    return [
        (name, leaf)
        for name, leaf in _leaves(gone)
        if name == "kernel" or (name == "bias" and leaf is gone.get("bias"))
    ]


def _closest(replaced: list[tuple[Any, Any]], name: Any, shape: tuple[int, ...]) -> Any:
    """What has the same name, or the largest kernel between the same channels."""
    wanted = name if any(own == name for own, _ in replaced) else "kernel"
    return max(
        (leaf for own, leaf in replaced if own == wanted),
        key=lambda leaf: (leaf.shape[-2:] == shape[-2:], leaf.shape[-1:] == shape[-1:], leaf.size),
    )


def _leaves(node: Any, name: Any = None) -> list[tuple[Any, Any]]:
    """The leaves, each with its own name."""
    if not isinstance(node, Mapping):
        return [(name, node)]
    return [leaf for key, value in node.items() for leaf in _leaves(value, key)]
