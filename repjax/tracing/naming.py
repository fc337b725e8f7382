"""Names of fused parameters: the module they came from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax

from repjax.branches.grammar import PREFIX

Path = tuple[str, ...]


def variable_paths(variables: Any) -> list[Path]:
    """The path of every leaf of a tree, in words, without the name of its collection.

    A tree is taken to have collections if it is a mapping with an entry "params".
    """
    entries = jax.tree_util.tree_flatten_with_path(variables)[0]
    collections = isinstance(variables, Mapping) and "params" in variables
    paths = []
    for keys, _ in entries:
        words = [word for key in keys for word in _words(key)]
        if collections:
            words = words[1:]
        while len(words) > 1 and words[-1] in {"value", "raw_value"}:
            words = words[:-1]
        paths.append(tuple(words) or ("value",))
    return paths


def _words(key: Any) -> list[str]:
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return [str(getattr(key, attribute)).lstrip("./") or "_"]
    return [str(key)]


def module_of(paths: Sequence[Path]) -> Path:
    """The deepest module that holds all the leaves; that of the first if there is none.

    A node named by an equation is what a module holds before it is fused, so it is left out.
    """
    modules = [tuple(word for word in path[:-1] if not word.startswith(PREFIX)) for path in paths]
    common: list[str] = []
    for words in zip(*modules, strict=False):
        if len(set(words)) != 1:
            break
        common.append(words[0])
    return tuple(common) or (modules[0] if modules else ())


class Names:
    """Paths in a nested dict, each given once and none inside another."""

    def __init__(self) -> None:
        self._leaves: set[Path] = set()
        self._modules: set[Path] = {()}

    def take(self, module: Path, name: str) -> Path:
        """A free path for a leaf of a module; a number is added to the module if need be."""
        number = 0
        while True:
            suffix = f"_{number}" if number else ""
            place = (*module[:-1], module[-1] + suffix) if module else ()
            path = (*place, name) if module else (name + suffix,)
            above = [path[:length] for length in range(1, len(path))]
            if (
                path not in self._leaves
                and path not in self._modules
                and not any(part in self._leaves for part in above)
            ):
                self._leaves.add(path)
                self._modules.update(above)
                return path
            number += 1


def nested(leaves: Mapping[Path, Any]) -> dict[str, Any]:
    """A nested dict from paths and values."""
    tree: dict[str, Any] = {}
    for path, value in leaves.items():
        place = tree
        for word in path[:-1]:
            place = place.setdefault(word, {})
        place[path[-1]] = value
    return tree


def look_up(tree: Any, paths: Iterable[Path]) -> dict[Path, Any]:
    """The values at these paths of a nested dict.

    Raises:
        ValueError: some are missing (all are listed).
    """
    found, missing = {}, []
    for path in paths:
        place = tree
        try:
            for word in path:
                place = place[word]
            found[path] = place
        except (KeyError, TypeError, IndexError):
            missing.append("/".join(path))
    if missing:
        raise ValueError(
            f"fused parameters lack {', '.join(missing)}; expected the tree that "
            "Fused.params or Fused.fuse_params(variables) gives"
        )
    return found
