"""What can be wrong with a block in a tree: every problem is found before any is raised."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from repjax.branches import Branch, LeafShape, parse
from repjax.branches.branch import get
from repjax.trees.containers import leaf_paths
from repjax.trees.find import BlockNode
from repjax.trees.register import registered


class MalformedTreeError(ValueError):
    """A tree that does not hold what the names of its blocks promise; all of them are listed.

    Example:
        >>> import repjax
        >>> repjax.fuse_params({"block0": {"y=conv3x3": {}}})  # doctest: +IGNORE_EXCEPTION_DETAIL
        Traceback (most recent call last):
        MalformedTreeError: ... block0/y=conv3x3/kernel: missing ...
    """


@dataclasses.dataclass(frozen=True)
class CheckedBlock:
    """A block whose arrays are what its name promises.

    Args:
        node: its node.
        branch: its resolved branch.
        dims: number of spatial axes.
        inputs: number of input channels, from the shapes.
        groups: number of channel groups, from the shapes.
    """

    node: BlockNode
    branch: Branch
    dims: int
    inputs: int
    groups: int

    @property
    def taps(self) -> tuple[int, ...]:
        """Of the one convolution that it is in inference, per axis."""
        return tuple(axis.taps for axis in self.branch.axes(self.dims))

    @property
    def features(self) -> int:
        """Output channels."""
        return self.branch.channels(self.node.arrays, self.inputs, self.groups, [])


def raise_all(problems: Iterable[str]) -> None:
    """Raise one error for all problems, if there are any.

    Raises:
        MalformedTreeError: there is a problem.
    """
    listed = list(problems)
    if listed:
        count = f"{len(listed)} problem{'s' if len(listed) > 1 else ''}"
        raise MalformedTreeError(f"{count} in the tree:\n" + "\n".join(f"  {p}" for p in listed))


def examine_all(
    nodes: Iterable[BlockNode], problems: list[str]
) -> tuple[list[CheckedBlock], list[BlockNode]]:
    """The blocks without a problem, and the registered ones, which only their functions know.

    Problems of the others are added to the list.
    """
    own: list[BlockNode] = []
    written: list[BlockNode] = []
    for node in nodes:
        (own if node.name in registered() else written).append(node)
    missing = _missing_statistics(written)
    if missing is not None:
        problems.append(missing)
        return [], own
    checked = (examine(node, problems) for node in written)
    return [block for block in checked if block is not None], own


def _missing_statistics(nodes: Iterable[BlockNode]) -> str | None:
    """One problem for all blocks, where none has the statistics of its norms."""
    lacking = []
    for node in nodes:
        try:
            wanted = [path for path in parse(node.name).leaves() if path[-1] in ("mean", "var")]
        except ValueError:
            continue
        if any(get(node.arrays, *path) is not None for path in wanted):
            return None
        lacking += [node.at()] if wanted else []
    if not lacking:
        return None
    count = f"{len(lacking)} blocks have" if len(lacking) > 1 else "a block has"
    return (
        f"{count} batch norm, but the tree holds no statistics (mean, var); pass all variables, "
        f"{{'params': ..., 'batch_stats': ...}}; the first is {lacking[0]}"
    )


def examine(node: BlockNode, problems: list[str]) -> CheckedBlock | None:
    """The block of a node, or None and its problems."""
    try:
        branch = parse(node.name)
    except ValueError as error:
        problems.append(f"{node.at()}: {error}")
        return None
    found = _structure_problems(node, branch) or _value_problems(node, branch)
    if found:
        problems.extend(found)
        return None
    groups, inputs, wrong = channels(branch, node.arrays)
    if wrong:
        problems.extend(f"{node.at(*path)}: {words}" for path, words in wrong)
        return None
    assert branch.dims is not None
    return CheckedBlock(node, branch, branch.dims, inputs, groups)


def channels(
    branch: Branch, arrays: Mapping[str, Any]
) -> tuple[int, int, list[tuple[tuple[str, ...], str]]]:
    """Groups and input channels that explain the shapes best, and what they do not explain."""
    path = next(path for path in branch.leaves() if path[-1] == "kernel")
    features = get(arrays, *path).shape[-1]
    best = None
    for groups in range(1, features + 1):
        if features % groups:
            continue
        wrong: list[tuple[tuple[str, ...], str]] = []
        inputs = branch.inputs(arrays, groups)
        assert inputs is not None, "there is a kernel"
        branch.channels(arrays, inputs, groups, wrong)
        if best is None or len(wrong) < len(best[2]):
            best = groups, inputs, wrong
        if not wrong:
            break
    assert best is not None
    return best


def _structure_problems(node: BlockNode, branch: Branch) -> list[str]:
    wanted = branch.leaves()
    found = dict(leaf_paths(dict(node.arrays)))
    missing = [path for path in wanted if path not in found]
    stray = [path for path in found if path not in wanted]
    problems = [
        f"{node.at(*path)}: missing; the block's name promises it, {_words(wanted[path])}"
        for path in missing
    ]
    problems += [
        f"{node.at(*path)}: not part of the block; expected only what its name promises"
        for path in stray
    ]
    shapes = {path: found[path] for path in wanted if path in found}
    ranks = {path: _rank(wanted[path]) for path in shapes}
    stacked = bool(shapes) and all(
        getattr(leaf, "ndim", None) == ranks[path] + 1 for path, leaf in shapes.items()
    )
    if stacked:
        lead = {leaf.shape[0] for leaf in shapes.values()}
        hint = "a stack of blocks (nn.scan?); use jax.vmap(repjax.fuse_params) over that axis"
        return [*problems, f"{node.at()}: every array has a leading axis {sorted(lead)}: {hint}"]
    for path, leaf in shapes.items():
        problems += [f"{node.at(*path)}: {words}" for words in _leaf_problems(leaf, wanted[path])]
    return problems


def _leaf_problems(leaf: Any, wanted: LeafShape) -> list[str]:
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return ["is abstract; use jax.eval_shape(repjax.fuse_params, variables)"]
    if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
        return [f"is a {type(leaf).__name__}, expected an array: {_words(wanted)}"]
    problems = []
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        problems.append(f"has dtype {leaf.dtype}, expected a floating point type")
    size = wanted.kernel_size
    if leaf.ndim != _rank(wanted) or (size and tuple(leaf.shape[: len(size)]) != size):
        problems.append(f"has shape {tuple(leaf.shape)}, expected {_words(wanted)}")
    return problems


def _value_problems(node: BlockNode, branch: Branch) -> list[str]:
    problems = []
    for path in branch.leaves():
        if path[-2:-1] != ("norm",) or path[-1] not in ("mean", "var"):
            continue
        leaf = get(node.arrays, *path)
        if isinstance(leaf, jax.core.Tracer) or not getattr(leaf, "is_fully_addressable", True):
            continue
        values = np.asarray(leaf).astype(np.float64)
        if not np.isfinite(values).all():
            problems.append(f"{node.at(*path)}: holds values that are not finite")
        elif path[-1] == "var" and (values < 0).any():
            problems.append(f"{node.at(*path)}: holds negative variances")
    return problems


def _rank(leaf: LeafShape) -> int:
    return 1 if leaf.kernel_size is None else len(leaf.kernel_size) + 2


def _words(leaf: LeafShape) -> str:
    if leaf.kernel_size is None:
        return "shape (channels,)"
    return f"shape ({', '.join(map(str, leaf.kernel_size))}, in/groups, out)"
