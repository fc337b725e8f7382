"""NNX states at the tree door: read as nested dicts, results given back as states.

Nothing here imports NNX: who holds a state has imported it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any


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
    its metadata; all others become parameters. In states of bare arrays they stay arrays.

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

    boxed = any(is_a("Variable", leaf) for state in given for leaf in _leaves(state))

    def variable(leaf: Any, old: list[Any]) -> Any:
        known = next((node for node in old if not isinstance(node, Mapping)), None)
        if known is None:
            return nnx.Param(leaf) if boxed else leaf
        if not is_a("Variable", known):
            return leaf
        return type(known).from_metadata(leaf, known.get_metadata())

    def walk(node: Any, old: list[Any]) -> Any:
        if not isinstance(node, dict):
            return variable(node, old)
        inside = [tree for tree in old if isinstance(tree, Mapping)]
        return {
            key: walk(value, [tree[key] for tree in inside if key in tree])
            for key, value in node.items()
        }

    return nnx.State(walk(result, list(given)))


def _leaves(node: Any) -> list[Any]:
    if not isinstance(node, Mapping):
        return [node]
    return [leaf for value in node.values() for leaf in _leaves(value)]
