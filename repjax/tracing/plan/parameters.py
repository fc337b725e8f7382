"""The parameters of a fused program, and the variables they are made of: paths and shapes."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from repjax.tracing.program.weights import Weight

Path = tuple[str, ...]


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


def nested(leaves: Mapping[Path, Any]) -> dict[str, Any]:
    """A nested dict from paths and values."""
    tree: dict[str, Any] = {}
    for path, value in leaves.items():
        place = tree
        for word in path[:-1]:
            place = place.setdefault(word, {})
        place[path[-1]] = value
    return tree


def values_at(tree: Any, shapes: Mapping[Path, tuple[int, ...]]) -> dict[Path, Any]:
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
