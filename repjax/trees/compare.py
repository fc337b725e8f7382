"""Whether a deploy tree and a multi-branch tree are of the same network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from repjax.trees.containers import TreePath, joined, leaf_paths
from repjax.trees.find import BlockNode, Parts


def target_problems(
    node: BlockNode, module: Any, wanted: Mapping[str, tuple[int, ...]]
) -> list[str]:
    """What is wrong with the module of a deploy tree that is to become a block."""
    if not isinstance(module, dict):
        return [f"{joined(node.path)}: missing in the deploy tree"]
    problems = []
    for name in ("kernel", "bias"):
        where = joined((*node.path, name))
        if (name in module) != (name in wanted):
            word = "missing" if name in wanted else "not expected"
            problems.append(f"{where}: {word} in the deploy tree")
        elif name in wanted and _shape(module[name]) != wanted[name]:
            problems.append(f"{where}: has shape {_shape(module[name])}, expected {wanted[name]}")
    return problems


def other_problems(parts: Parts, given: Parts, blocks: list[BlockNode]) -> list[str]:
    """Leaves outside the blocks that only one of the trees has, or of another shape."""
    inside = {(*node.path, node.name) for node in blocks}
    fused = {(*node.path, leaf) for node in blocks for leaf in ("kernel", "bias")}
    problems = []
    for name in dict.fromkeys([*parts, *given]):
        have = {
            path: leaf
            for path, leaf in leaf_paths(parts.get(name, {}))
            if not any(path[:end] in inside for end in range(1, len(path) + 1))
        }
        want = {path: leaf for path, leaf in leaf_paths(given.get(name, {})) if path not in fused}
        for path in sorted(have.keys() | want.keys(), key=str):
            where = joined(path if name is None else (name, *path))
            if path not in want:
                problems.append(f"{where}: missing in the deploy tree")
            elif path not in have:
                problems.append(f"{where}: only in the deploy tree")
            elif _shape(have[path]) != _shape(want[path]):
                found, expected = _shape(want[path]), _shape(have[path])
                problems.append(f"{where}: has shape {found}, expected {expected}")
    return problems


def _shape(leaf: Any) -> TreePath:
    return tuple(getattr(leaf, "shape", ()))
