"""Trees as nested dicts, lists and tuples: their children, copies of them, what is no tree."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import flax
import jax

from repjax.trees.states import is_a

TreePath = tuple[Any, ...]


def joined(path: TreePath) -> str:
    """A path as messages write it."""
    return "/".join(map(str, path))


def plain(node: Any) -> Any:
    """A copy of all containers: mappings become dicts, boxed leaves are unboxed.

    Leaves stay the same objects.
    """
    if isinstance(node, flax.core.meta.AxisMetadata):
        return node.unbox()
    if is_a("Variable", node):
        return node.get_value()
    if isinstance(node, Mapping):
        return {key: plain(value) for key, value in node.items()}
    if type(node) in (list, tuple):
        return type(node)(map(plain, node))
    if is_named_tuple(node):
        return type(node)(*map(plain, node))
    return node


def is_named_tuple(node: Any) -> bool:
    """Whether a node is a tuple with names, as states of optimizers are."""
    return isinstance(node, tuple) and hasattr(node, "_fields")


def children(node: Any) -> dict[Any, Any] | None:
    """The children of a dict, list or tuple by key or index, None for everything else."""
    if isinstance(node, dict):
        return node
    return dict(enumerate(node)) if type(node) in (list, tuple) else None


def at(node: Any, path: TreePath) -> Any:
    """The node at a path, None where there is none."""
    for key in path:
        node = (children(node) or {}).get(key)
    return node


def leaf_paths(node: Any, path: TreePath = ()) -> Iterator[tuple[TreePath, Any]]:
    """Every leaf of a tree with its path."""
    below = children(node)
    if below is None:
        yield path, node
        return
    for key, value in below.items():
        yield from leaf_paths(value, (*path, key))


class _Gone:
    """Stands where a node was taken out."""


GONE = _Gone()


def with_children(node: Any, items: Mapping[Any, Any]) -> Any:
    """A container of the same kind with other children; those that are `GONE` are left out.

    A list keeps the places of those that stay: `GONE` leaves an empty dict.
    """
    if isinstance(node, dict):
        return {key: value for key, value in items.items() if value is not GONE}
    if all(value is GONE for value in items.values()):
        return type(node)()
    return type(node)({} if value is GONE else value for value in items.values())


def keys_inside(node: Any) -> Iterator[Any]:
    """Every key or attribute inside an object that JAX flattens and `children` does not."""
    if hasattr(node, "dtype") or node is None:
        return
    for path, _ in jax.tree_util.tree_flatten_with_path(node)[0]:
        yield from (getattr(entry, "key", getattr(entry, "name", None)) for entry in path)


def flattened(key: Any, prefix: str) -> bool:
    """Whether a key is a whole path through a block, as flattened trees have them."""
    names = key if isinstance(key, tuple) else re.split(r"[/.]", key) if type(key) is str else ()
    return len(names) > 1 and any(str(name).startswith(prefix) for name in names)


def require_tree(tree: Any, argument: str) -> None:
    """Refuse a tree that is no nested dict, with a message that says what to pass instead.

    Raises:
        TypeError: `tree` is no mapping.
    """
    if isinstance(tree, Mapping):
        return
    kind = type(tree).__name__
    article = "an" if kind[0] in "aeiouAEIOU" else "a"
    found = "None" if tree is None else f"{article} {kind}"
    if isinstance(getattr(tree, "params", None), Mapping):
        names = [name for name in ("params", "batch_stats") if hasattr(tree, name)]
        pairs = ", ".join(f"'{name}': {argument}.{name}" for name in names)
        hint = f"pass {{{pairs}}}"
    elif hasattr(tree, "init") and hasattr(tree, "apply"):
        hint = "a module holds no arrays: pass the variables that its init returns"
    elif is_a("Module", tree):
        hint = "pass nnx.state(module), or the module to repjax.nnx.deploy"
    elif is_named_tuple(tree):
        hint = "states of optimizers are not fused, only parameters"
    elif isinstance(tree, list | tuple):
        hint = "pass {'params': the list} if it holds one tree per layer"
    elif isinstance(tree, str) or hasattr(tree, "__fspath__"):
        hint = "load the file first"
    else:
        hint = "pass what model.init returns"
    raise TypeError(
        f"{argument} is {found}; expected a nested dict with 'params', and 'batch_stats' where "
        f"there is batch norm; {hint}"
    )
