"""Finding blocks: one walk over the collections of a variables tree, and its rebuilding."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from repjax.branches.reader import PREFIX
from repjax.trees.containers import (
    GONE,
    TreePath,
    children,
    flattened,
    joined,
    keys_inside,
    plain,
    require_tree,
    with_children,
)
from repjax.trees.register import registered
from repjax.trees.rename import regrouped

Parts = dict[str | None, Any]


@dataclasses.dataclass(frozen=True)
class BlockNode:
    """A block in a tree.

    Args:
        path: of its module.
        name: of its node.
        arrays: what the node holds, collections merged, so that a norm has `scale`, `bias`,
            `mean` and `var` side by side.
    """

    path: TreePath
    name: str
    arrays: Mapping[str, Any]

    def at(self, *leaf: Any) -> str:
        """Its path in words, with a path below the node."""
        name = self.name if len(self.name) <= 240 else f"{self.name[:200]}...{self.name[-20:]}"
        return joined((*self.path, name, *leaf))


def collections(variables: Any, argument: str) -> Parts:
    """The collections of a variables tree by name; a bare `params` tree has the name None.

    Raises:
        TypeError: `variables` is no nested dict.
    """
    require_tree(variables, argument)
    tree = regrouped(plain(variables))
    return {**tree} if children(tree.get("params")) is not None else {None: tree}


def params_of(parts: Parts) -> str | None:
    """The name of the collection that holds the parameters."""
    return None if None in parts else "params"


def variables_of(parts: Parts) -> Any:
    """The variables tree of these collections; those that are `GONE` are left out."""
    if None in parts:
        return {} if parts[None] is GONE else parts[None]
    return {name: tree for name, tree in parts.items() if tree is not GONE}


def is_block(name: Any) -> bool:
    """Whether a node of that name is a block."""
    return isinstance(name, str) and (name.startswith(PREFIX) or name in registered())


def blocks(parts: Parts, problems: list[str]) -> list[BlockNode]:
    """Every block of a tree, in order; blocks hidden or held twice are added to `problems`."""
    found: list[BlockNode] = []
    home = params_of(parts)

    def visit(path: TreePath, nodes: Mapping[str | None, Any]) -> None:
        inside = {name: children(node) for name, node in nodes.items()}
        for name, node in nodes.items():
            if inside[name] is None and any(is_block(key) for key in keys_inside(node)):
                problems.append(f"{_where(name, path)}: {_hidden(node)}")
        containers = {name: items for name, items in inside.items() if items is not None}
        if path and any({"params", "batch_stats"} <= items.keys() for items in containers.values()):
            problems.append(f"{joined(path)}: a variables tree of its own; pass it alone")
            return
        for key in dict.fromkeys(key for items in containers.values() for key in items):
            below = {name: items[key] for name, items in containers.items() if key in items}
            if flattened(key, PREFIX):
                problems.append(f"{_where(next(iter(below)), (*path, key))}: {_FLAT}")
            elif not is_block(key):
                visit((*path, key), below)
            elif key.startswith(PREFIX) or any(isinstance(node, dict) for node in below.values()):
                found.append(_block(path, key, below, home, problems))

    visit((), parts)
    return found


_FLAT = (
    "a flattened tree; pass the nested one, see flax.traverse_util.unflatten_dict(variables, "
    "sep='/')"
)


def _where(collection: str | None, path: TreePath) -> str:
    return joined(path if collection is None else (collection, *path))


def _hidden(node: Any) -> str:
    return (
        f"a {type(node).__name__} with blocks inside; they are fused inside dicts, lists and "
        "tuples (states of optimizers never: moments are no weights); pass the parameters alone"
    )


def _block(
    path: TreePath, name: str, nodes: Parts, home: str | None, problems: list[str]
) -> BlockNode:
    where = joined((*path, name))
    for node in nodes.values():
        if not isinstance(node, dict) and not hasattr(node, "dtype"):
            problems.append(f"{where}: is a {type(node).__name__}, expected a dict of arrays")
    dicts = {collection: node for collection, node in nodes.items() if isinstance(node, dict)}
    if dicts and home not in dicts:
        problems.append(
            f"{where}: only in {' and '.join(map(repr, dicts))}, not in 'params'; pass "
            "parameters and statistics alone"
        )
    twice: list[TreePath] = []
    arrays = merge(dicts.values(), twice)
    if twice:
        problems.append(
            f"{joined((*path, name, *twice[0]))}: in more than one of "
            f"{', '.join(map(repr, dicts))}; pass one copy of the parameters"
        )
    return BlockNode(path, name, arrays)


def merge(nodes: Any, twice: list[TreePath], path: TreePath = ()) -> dict[str, Any]:
    """Several trees of the same nodes, laid over each other; leaves in two of them are listed."""
    merged: dict[str, Any] = {}
    for node in nodes:
        for key, value in node.items():
            if key not in merged:
                merged[key] = value
            elif isinstance(value, dict) and isinstance(merged[key], dict):
                merged[key] = merge((merged[key], value), twice, (*path, key))
            else:
                twice.append((*path, key))
    return merged


Change = Callable[[dict[Any, Any]], Any]


def rebuild(tree: Any, changes: Mapping[TreePath, Change]) -> Any:
    """The tree with some nodes replaced.

    A change gets the node at its path and returns the new one, or `GONE`; nodes that become
    empty that way are taken out too.
    """
    items = dict(children(tree) or {})
    below: dict[Any, dict[TreePath, Change]] = {}
    for path, change in changes.items():
        if path and path[0] in items:
            below.setdefault(path[0], {})[path[1:]] = change
    if below:
        items |= {key: rebuild(items[key], inner) for key, inner in below.items()}
        tree = with_children(tree, items)
    if () in changes:
        return changes[()](tree) if isinstance(tree, dict) else tree
    return tree if tree or not below else GONE
