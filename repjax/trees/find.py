"""Finding blocks: one walk over the collections of a variables tree, and its rebuilding."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax

from repjax.branches.grammar import PREFIX
from repjax.trees.register import registered

Path = tuple[Any, ...]
Node = Any


@dataclasses.dataclass(frozen=True)
class Place:
    """A block in a tree: the module's path, the name of its node, and what it holds.

    `arrays` merges the collections, so that a norm has `scale`, `bias`, `mean` and `var`
    side by side; `homes` says in which collections the node lies.
    """

    path: Path
    name: str
    arrays: Mapping[str, Any]
    homes: tuple[str | None, ...]

    def at(self, *leaf: Any) -> str:
        """The place in words, with a path below the node."""
        return text((*self.path, self.name, *leaf))


def text(path: Path) -> str:
    """A path as messages write it."""
    return "/".join(map(str, path))


def collections(variables: Mapping[str, Any]) -> dict[str | None, Any]:
    """The collections of a variables tree by name; a bare `params` tree has the name None."""
    tree = plain(variables)
    if isinstance(tree.get("params"), dict):
        return {**tree}
    return {None: tree}


def variables_of(parts: Mapping[str | None, Any]) -> Any:
    """The variables tree of these collections; those that are gone stay away."""
    if None in parts:
        return {} if parts[None] is GONE else parts[None]
    return {name: tree for name, tree in parts.items() if tree is not GONE}


def plain(node: Node) -> Node:
    """Nested dicts with plain leaves: mappings become dicts, boxed leaves are unboxed.

    What is plain already is returned as it is, the same objects.
    """
    if isinstance(node, flax.core.meta.AxisMetadata):
        return node.unbox()
    if not isinstance(node, Mapping):
        return node
    items = {key: plain(value) for key, value in node.items()}
    same = isinstance(node, dict) and all(items[key] is node[key] for key in items)
    return node if same else items


def is_block(name: Any) -> bool:
    """Whether a node of that name is a block."""
    return isinstance(name, str) and (name.startswith(PREFIX) or name in registered())


def blocks(parts: Mapping[str | None, Any]) -> Iterator[Place]:
    """Every block of a tree, in order."""

    def visit(path: Path, nodes: dict[str | None, dict[Any, Any]]) -> Iterator[Place]:
        for key in dict.fromkeys(key for node in nodes.values() for key in node):
            below = {home: node[key] for home, node in nodes.items() if key in node}
            below = {home: node for home, node in below.items() if isinstance(node, dict)}
            if is_block(key) and (below or key.startswith(PREFIX)):
                yield Place(path, key, merge(below.values()), tuple(below))
            elif below:
                yield from visit((*path, key), below)

    yield from visit((), {home: tree for home, tree in parts.items() if isinstance(tree, dict)})


def merge(nodes: Any) -> dict[str, Any]:
    """Several trees of the same nodes, laid over each other."""
    merged: dict[str, Any] = {}
    for node in nodes:
        for key, value in node.items():
            both = isinstance(value, dict) and isinstance(merged.get(key), dict)
            merged[key] = merge((merged[key], value)) if both else value
    return merged


class _Gone:
    """Stands where a node was taken out."""


GONE = _Gone()


def rebuild(tree: Node, changes: Mapping[Path, Callable[[dict[Any, Any]], Node]]) -> Node:
    """The tree with some nodes replaced; what is not on their way stays the same object.

    A change gets the node at its path and returns the new one, or `GONE`; nodes that become
    empty that way are taken out too.
    """
    if not isinstance(tree, dict):
        return tree
    below: dict[Any, dict[Path, Callable[[dict[Any, Any]], Node]]] = {}
    for path, change in changes.items():
        if path and path[0] in tree:
            below.setdefault(path[0], {})[path[1:]] = change
    if below:
        items = {
            key: rebuild(value, below[key]) if key in below else value
            for key, value in tree.items()
        }
        tree = {key: value for key, value in items.items() if value is not GONE}
    if () in changes:
        return changes[()](tree)
    return tree if tree or not below else GONE


def leaf_paths(node: Node, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every leaf of nested dicts with its path."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from leaf_paths(value, (*path, key))
    else:
        yield path, node
