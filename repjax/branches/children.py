"""The nodes that several branches have side by side in a tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from repjax.branches.branch import Branch, LeafPath, LeafShape, Leaves


def require_outputs(branch: Branch, inputs: int, features: int) -> None:
    """Refuse a branch of a block or sum whose output channels are not `features`.

    Raises:
        ValueError: the number of output channels differs.
    """
    found = branch.outputs(inputs, features)
    if found != features:
        raise ValueError(
            f"branch {branch.formula()} makes {found} channels of {inputs}, but the block has "
            f"features={features} output channels; put it into a Sequence with a Pointwise(), "
            "leave it out, or change features"
        )


def named(branches: Sequence[Branch]) -> dict[str, Branch]:
    """Branches by the names of their nodes; equal names are numbered."""
    labels = [branch.label for branch in branches]
    seen: dict[str, int] = {}
    names = {}
    for label, branch in zip(labels, branches, strict=True):
        number = seen[label] = seen.get(label, -1) + 1
        names[label if labels.count(label) == 1 else f"{label}_{number}"] = branch
    return names


def nest(branches: Mapping[str, Branch]) -> dict[LeafPath, LeafShape]:
    """The leaves of several branches, under their names."""
    return {
        (name, *path): leaf
        for name, branch in branches.items()
        for path, leaf in branch.leaves().items()
    }


def first_known(branches: Mapping[str, Branch], leaves: Leaves, groups: int) -> int | None:
    """Input channels of the first of several branches whose arrays imply them."""
    found = (branch.inputs(leaves.get(name, {}), groups) for name, branch in branches.items())
    return next((inputs for inputs in found if inputs is not None), None)


def channels_of(
    name: str,
    branch: Branch,
    leaves: Leaves,
    inputs: int,
    groups: int,
    problems: list[tuple[LeafPath, str]],
) -> int:
    """Output channels of the branch in the node `name`; problems are added under its path."""
    inner: list[tuple[LeafPath, str]] = []
    features = branch.channels(leaves.get(name, {}), inputs, groups, inner)
    problems.extend(((name, *path), problem) for path, problem in inner)
    return features
