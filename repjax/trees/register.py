"""Blocks of the user's own: a fold from a subtree to a kernel and a bias, and its way back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, overload

import jax
import jax.numpy as jnp

from repjax.algebra import NotFusableError
from repjax.branches.reader import PREFIX
from repjax.trees.containers import at, leaf_paths

LEAVES = ("kernel", "bias")
Fold = Callable[[Mapping[str, Any]], tuple[Any, Any]]
Unfold = Callable[[Any, Any, Mapping[str, Any]], Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Registered:
    """The functions of a registered block.

    Args:
        fold: from its subtree to kernel and bias.
        unfold: the way back, None where there is none.
    """

    fold: Fold
    unfold: Unfold | None = None


_BLOCKS: dict[str, Registered] = {}


@overload
def register_block(name: str, fold: Fold, unfold: Unfold | None = None) -> Fold: ...
@overload
def register_block(
    name: str, fold: None = None, unfold: Unfold | None = None
) -> Callable[[Fold], Fold]: ...
def register_block(
    name: str, fold: Fold | None = None, unfold: Unfold | None = None
) -> Fold | Callable[[Fold], Fold]:
    """Teach `fuse_params` and `unfuse_params` a block of your own, at import time.

    Every node of that name is then a block: it is replaced, in its parent, by `kernel` and
    `bias`. Blocks made of `repjax.branches` need no registration. Registering a function
    again (a notebook cell that runs twice: same module, same qualified name) replaces it.

    Args:
        name: of the node, a string that no other block has.
        fold: ``fold(subtree) -> (kernel, bias)``: the subtree holds the arrays of all
            collections side by side, by their names; the bias has one entry per output
            channel (the kernel's last axis) or is None. Pure and traceable; it raises
            `NotFusableError` where it would not be exact.
        unfold: ``unfold(kernel, bias, subtree) -> new``: a nested dict with those arrays of
            the subtree that must change for it to fold to that kernel and bias.

    Returns:
        `fold`, or a decorator for it where it is left out.

    Raises:
        ValueError: the name is taken by another function, or could be an equation.
        TypeError: a name that is no string, or a fold that is no function.

    Example:
        >>> import jax.numpy as jnp, repjax
        >>> @repjax.register_block("doctest_low_rank")
        ... def fold(subtree):
        ...     return subtree["kernel"] + subtree["down"] @ subtree["up"], None
        >>> arrays = {"kernel": jnp.ones((2, 2)), "down": jnp.ones((2, 1)), "up": jnp.ones((1, 2))}
        >>> repjax.fuse_params({"head": {"doctest_low_rank": arrays}})["head"]["kernel"][0]
        Array([2., 2.], dtype=float32)
    """
    if not isinstance(name, str):
        raise TypeError(
            f"the name of a block is a string, found {name!r}; use "
            "@register_block('name') above the fold"
        )
    if name.startswith(PREFIX):
        raise ValueError(f"names that begin with {PREFIX!r} are equations, found {name!r}")
    if fold is None:
        return lambda function: register_block(name, function, unfold)
    for word, function in (("fold", fold), ("unfold", unfold)):
        if not callable(function) and function is not None:
            raise TypeError(f"{word} of block {name!r} is a function, found {function!r}")
    if name in _BLOCKS and not _same(_BLOCKS[name].fold, fold):
        raise ValueError(
            f"a block named {name!r} is known already, folded by "
            f"{_qualified(_BLOCKS[name].fold)}; choose another name"
        )
    _BLOCKS[name] = Registered(fold, unfold)
    return fold


def registered() -> Mapping[str, Registered]:
    """The registered blocks by the names of their nodes, read only."""
    return MappingProxyType(_BLOCKS)


def folded(where: str, name: str, arrays: Mapping[str, Any]) -> tuple[Any, Any]:
    """Kernel and bias of a registered block, as its function gives them.

    Raises:
        ValueError: the function returns anything else.
    """
    result = _BLOCKS[name].fold(arrays)
    expected = f"{where}: its fold gives (kernel, bias), arrays of floats or None for no bias; "
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise ValueError(f"{expected}found {_described(result)}")
    kernel, bias = result
    for word, leaf in (("kernel", kernel), ("bias", bias)):
        if leaf is None and word == "bias":
            continue
        if not hasattr(leaf, "dtype") or not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ValueError(f"{expected}found {_described(leaf)} as {word}")
    if kernel.ndim == 0 or (bias is not None and bias.shape != kernel.shape[-1:]):
        shape = None if bias is None else tuple(bias.shape)
        raise ValueError(
            f"{expected}found a kernel of shape {tuple(kernel.shape)} and a bias of shape "
            f"{shape}; the bias has one entry for each index of the kernel's last axis"
        )
    return kernel, bias


def unfolded(
    where: str, name: str, arrays: Mapping[str, Any], module: Mapping[str, Any]
) -> dict[str, Any]:
    """New arrays of a registered block that is to fold to the kernel and bias of a module.

    Raises:
        NotFusableError: the block has no `unfold`.
        ValueError: the trees do not fit, or its function gives no arrays of the block.
    """
    block = _BLOCKS[name]
    if block.unfold is None:
        raise NotFusableError(
            f"{name!r} was registered without a way back: register_block(..., unfold=...)"
        )
    wanted = jax.eval_shape(lambda leaves: folded(where, name, leaves), dict(arrays))
    shapes = [None if leaf is None else leaf.shape for leaf in wanted]
    given = [None if leaf is None else jnp.shape(leaf) for leaf in map(module.get, LEAVES)]
    if given != shapes:
        raise NotFusableError(f"kernel and bias have shapes {given}, expected {shapes}")
    new = dict(block.unfold(module["kernel"], module.get("bias"), arrays))
    for path, leaf in leaf_paths(new):
        old = at(dict(arrays), path)
        if old is None or jnp.shape(old) != jnp.shape(leaf):
            raise ValueError(
                f"{where}: its unfold gives {'/'.join(map(str, path))} of shape "
                f"{jnp.shape(leaf)}; expected arrays that are there, in their shapes"
            )
    old = dict(arrays)
    return _cast(new, old)


def _cast(new: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
    """New arrays in the types of the old ones."""
    return {
        key: _cast(leaf, old[key])
        if isinstance(leaf, Mapping)
        else jnp.asarray(leaf).astype(jax.dtypes.canonicalize_dtype(old[key].dtype))
        for key, leaf in new.items()
    }


def _described(value: Any) -> str:
    shape = getattr(value, "shape", None)
    kind = type(value).__name__ if shape is None else f"array of shape {tuple(shape)}"
    return f"a {kind}" if shape is None else f"an {kind} and type {value.dtype}"


def _same(one: Fold, two: Fold) -> bool:
    return one is two or _qualified(one) == _qualified(two)


def _qualified(fold: Fold) -> str:
    names = [getattr(fold, name, None) for name in ("__module__", "__qualname__")]
    return ".".join(map(str, names)) if all(names) else repr(fold)
