"""What wraps one branch and lives in its node: a norm, a scale, a minus, a merge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from repjax.algebra import NotFusableError
from repjax.algebra.geometry import Axis
from repjax.branches.branch import Branch, LeafPath, LeafShape, Leaves, get


class Wrapper(Branch):
    """A branch around one other branch, as which it behaves unless a subclass overrides it."""

    branch: Branch

    def children(self) -> tuple[Branch, ...]:
        """The branch inside."""
        return (self.branch,)

    @property
    def label(self) -> str:
        """The name of the branch inside."""
        return self.branch.label

    @property
    def has_bias(self) -> bool:
        """As the branch inside."""
        return self.branch.has_bias

    def axes(self, dims: int) -> tuple[Axis, ...]:
        """As the branch inside."""
        return self.branch.axes(dims)

    def leaves(self) -> dict[LeafPath, LeafShape]:
        """As the branch inside."""
        return self.branch.leaves()

    def inputs(self, leaves: Leaves, groups: int) -> int | None:
        """As the branch inside."""
        return self.branch.inputs(leaves, groups)

    def channels(
        self, leaves: Leaves, inputs: int, groups: int, problems: list[tuple[LeafPath, str]]
    ) -> int:
        """As the branch inside; every vector of this node must have as many entries."""
        features = self.branch.channels(leaves, inputs, groups, problems)
        for path in self.leaves().keys() - self.branch.leaves().keys():
            shape = get(leaves, *path).shape
            if shape != (features,):
                problems.append((path, f"has shape {shape}, expected ({features},)"))
        return features

    def outputs(self, inputs: int, features: int) -> int:
        """As the branch inside."""
        return self.branch.outputs(inputs, features)

    def can_absorb(self, axes: tuple[Axis, ...], *, bias: bool) -> bool:
        """As the branch inside."""
        return self.branch.can_absorb(axes, bias=bias)


def updated(leaves: Leaves, new: Leaves) -> dict[str, Any]:
    """Leaves with some of them replaced."""
    return {
        name: updated(leaf, new.get(name, {})) if isinstance(leaf, Mapping) else new.get(name, leaf)
        for name, leaf in leaves.items()
    }


def shifted(own: jax.Array, wanted: jax.Array | None, now: jax.Array | None) -> jax.Array:
    """The value of its own bias with which a branch folds to `wanted`; it now folds to `now`."""
    assert wanted is not None
    assert now is not None, "a branch with its own bias folds to a convolution with a bias"
    bias = own.astype(wanted.dtype) + (wanted - now.astype(wanted.dtype))
    return bias.astype(own.dtype)


def require_nonzero(factor: jax.Array, branch: Branch) -> None:
    """Refuse to divide by a scale known to be zero.

    Raises:
        NotFusableError: an entry of a concrete `factor` is zero.
    """
    if not isinstance(factor, jax.core.Tracer) and bool((factor == 0).any()):
        zeros = jnp.flatnonzero(factor == 0).tolist()
        raise NotFusableError(f"the scale of {branch.formula()} is zero on channels {zeros}")


def function(name: str, attributes: list[str], branch: Branch) -> str:
    """A name applied to a branch."""
    suffix = f"[{','.join(attributes)}]" if attributes else ""
    return f"{name}{suffix}({branch.formula()})"
