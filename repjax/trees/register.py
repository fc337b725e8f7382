"""Blocks of the user's own: one small function from a subtree to a kernel and a bias."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

Fold = Callable[[Mapping[str, Any]], tuple[Any, Any]]

_FOLDS: dict[str, Fold] = {}


def register(name: str) -> Callable[[Fold], Fold]:
    """Teach `fuse_params` a block of your own, at import time.

    Every node of that name is then a block: it is replaced, in its parent, by `kernel` and
    `bias`. Blocks made of `repjax.branches` need no registration.

    Args:
        name: of the node, a string that no other block has.

    Returns:
        A decorator for ``fold(subtree) -> (kernel, bias)``: the subtree holds the arrays of
        all collections side by side, by their names; the bias may be None. It must be pure
        and traceable, and raise `NotFusableError` where it would not be exact.

    Raises:
        ValueError: the name is taken, or is an equation.

    Example:
        >>> import jax.numpy as jnp, repjax
        >>> @repjax.register("doctest_low_rank")
        ... def fold(subtree):
        ...     return subtree["kernel"] + subtree["down"] @ subtree["up"], None
        >>> arrays = {"kernel": jnp.ones((2, 2)), "down": jnp.ones((2, 1)), "up": jnp.ones((1, 2))}
        >>> repjax.fuse_params({"head": {"doctest_low_rank": arrays}})["head"]["kernel"][0]
        Array([2., 2.], dtype=float32)
    """

    def decorate(fold: Fold) -> Fold:
        if name in _FOLDS or name.startswith("y="):
            raise ValueError(f"a block named {name!r} is known already")
        _FOLDS[name] = fold
        return fold

    return decorate


def registered() -> Mapping[str, Fold]:
    """The registered folds by node name, read only."""
    return MappingProxyType(_FOLDS)
