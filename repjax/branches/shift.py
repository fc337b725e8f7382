"""A trained bias after a branch."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from repjax import algebra
from repjax.algebra import Conv
from repjax.algebra.geometry import Axis
from repjax.branches.branch import (
    Branch,
    Geometry,
    Initializer,
    LeafPath,
    LeafShape,
    Leaves,
    Request,
    Scope,
)
from repjax.branches.wrapper import Wrapper, function, shifted, updated


@dataclasses.dataclass(frozen=True)
class Shift(Wrapper):
    """A trained bias per channel after a branch; ``Shift(Identity())`` stands before others.

    In a `Sequence` the input is padded first, so a kernel after it reads the bias at the
    border too.

    Args:
        branch: what is shifted.
        bias_init: initializer of the bias; None leaves it to the block.

    Raises:
        ValueError: the branch has a bias in its node already.

    Source: the bias of a response norm, Ding et al., UniRepLKNet, CVPR 2024.

    Example:
        >>> from repjax.branches import Identity, KxK, Sequence
        >>> Sequence(Shift(Identity()), KxK(1)).resolve(2, use_bias=False).formula()
        'conv1x1(shift(identity))'
    """

    branch: Branch
    bias_init: Initializer | None = dataclasses.field(default=None, compare=False)

    def resolve(self, dims: int, *, use_bias: bool) -> Shift:
        """This branch with every default written out."""
        inner = self.branch.resolve(dims, use_bias=use_bias)
        if ("bias",) in inner.leaves():
            raise ValueError(f"a bias directly after a bias: {inner.formula()}")
        return dataclasses.replace(self, branch=inner)

    def formula(self) -> str:
        """What it computes, in the grammar of names."""
        return function("shift", [], self.branch)

    @property
    def has_bias(self) -> bool:
        """Always."""
        return True

    def leaves(self) -> dict[LeafPath, LeafShape]:
        """Those of the branch, and `bias`."""
        return self.branch.leaves() | {("bias",): LeafShape()}

    def apply(self, scope: Scope, x: jax.Array, geometry: Geometry) -> jax.Array:
        """The branch, plus its bias."""
        y = self.branch.apply(scope, x, geometry)
        y, bias = scope.promote(y, scope.leaf("bias", Request(y.shape[-1:], self.bias_init)))
        total: jax.Array = y + bias.reshape((1,) * (y.ndim - 1) + (-1,))
        return total

    def fold(self, leaves: Leaves, inputs: int, groups: int, dims: int) -> Conv:
        """The branch, composed with the bias."""
        inner = self.branch.fold(leaves, inputs, groups, dims)
        return algebra.compose(inner, algebra.channel_affine(shift=leaves["bias"], dims=dims))

    def can_absorb(self, axes: tuple[Axis, ...], *, bias: bool) -> bool:
        """As the branch inside; its own bias takes the bias."""
        return self.branch.can_absorb(axes, bias=False)

    def absorb(self, target: Conv, leaves: Leaves, inputs: int, groups: int) -> dict[str, Any]:
        """The branch takes the kernel, its own bias the bias."""
        new = self.branch.absorb(target.replace(bias=None), leaves, inputs, groups)
        if target.bias is None:
            return new
        now = self.fold(updated(leaves, new), inputs, groups, target.dims).bias
        return {**new, "bias": shifted(leaves["bias"], target.bias, now)}
