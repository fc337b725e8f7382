"""The parameters of a fused program: where each is kept, and under what name."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from repjax.tracing.program.weights import Weight

Path = tuple[str, ...]

EQUATION = "y="
"""How a node begins that is named by what it computes: what a module holds before it is fused."""


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A fused parameter: where it is kept, what it is, and its stored type (None: as it is)."""

    path: Path
    weight: Weight
    dtype: Any


@dataclasses.dataclass(frozen=True)
class Variable:
    """A variable of the user: where it is kept, its shape and type."""

    path: Path
    shape: tuple[int, ...]
    dtype: Any


def variable_paths(variables: Any) -> list[Path]:
    """The path of every leaf of a tree, in words, without the name of its collection.

    A tree is taken to have collections if it is a mapping with an entry "params". Where a
    tree is flat and its names are whole paths (``layer1.0.conv.weight``), these are read.
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
        if len(words) == 1 and re.search(r"[./]", words[0]):
            words = [word for word in re.split(r"[./]", words[0]) if word]
        paths.append(tuple(words) or ("value",))
    return paths


def _words(key: Any) -> list[str]:
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return [str(getattr(key, attribute)).lstrip("./") or "_"]
    return [str(key)]


def module_of(paths: Sequence[Path]) -> Path:
    """The deepest module that holds all the leaves; that of the first if there is none."""
    modules = [without_equations(path[:-1]) for path in paths]
    common: list[str] = []
    for words in zip(*modules, strict=False):
        if len(set(words)) != 1:
            break
        common.append(words[0])
    return tuple(common) or (modules[0] if modules else ())


def without_equations(path: Sequence[str]) -> Path:
    """A path without the nodes that are named by an equation."""
    return tuple(word for word in path if not word.startswith(EQUATION))


def scope_path(scope: str) -> Path:
    """Named scopes of an operation as a path; a source line is none."""
    if ":" in scope and not scope.startswith(EQUATION):
        return ()
    return without_equations([word for word in scope.split("/") if word])


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
            free = path not in self._leaves and path not in self._modules
            if free and not any(part in self._leaves for part in above):
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


def look_up(tree: Any, shapes: Mapping[Path, tuple[int, ...]]) -> dict[Path, Any]:
    """The values at these paths of a nested dict, of these shapes.

    Raises:
        ValueError: some are missing or have other shapes (all are listed).
    """
    found, problems = {}, []
    for path, shape in shapes.items():
        place = tree
        try:
            for word in path:
                place = place[word]
        except (KeyError, TypeError, IndexError):
            problems.append(f"lack {'/'.join(path)}")
            continue
        found[path] = place
        if np.shape(place) != shape:
            problems.append(f"{'/'.join(path)} has shape {np.shape(place)}, expected {shape}")
    if problems:
        raise ValueError(
            f"fused parameters {_first(problems)}; expected the tree that Fused.params or "
            "Fused.fuse_params(variables) gives"
        )
    return found


def _first(problems: Sequence[str], most: int = 10) -> str:
    """At most a screenful of problems."""
    rest = len(problems) - most
    more = [f"and {rest} more"] if rest > 0 else []
    return "; ".join([*problems[:most], *more])


def indices_of(weights: Iterable[Weight]) -> list[int]:
    """The variables that come in as kernels, or all of them if none does."""
    weights = list(weights)
    kernels = {index for weight in weights for index in weight.kernels}
    every = {index for weight in weights for index in weight.variables}
    return sorted(kernels or every)
