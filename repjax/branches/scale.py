"""A trained scale around a branch, and a minus."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

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
from repjax.branches.wrapper import Wrapper, function, require_nonzero, shifted, updated


@dataclasses.dataclass(frozen=True)
class Scale(Wrapper):
    """A trained scale per channel after a branch (layer scale), and a trained shift on request.

    Args:
        branch: what is scaled.
        bias: whether a trained bias is added to the scaled branch.
        scale_init: initializer of the scale; None leaves it to the block.
        bias_init: initializer of the bias; None leaves it to the block.

    Raises:
        ValueError: the branch has a scale in its node already, or a bias where one is added.

    Source: Touvron et al., CaiT, ICCV 2021.

    Example:
        >>> from repjax.branches import Identity
        >>> Scale(Identity()).formula()
        'scale(identity)'
    """

    branch: Branch
    bias: bool = False
    scale_init: Initializer | None = dataclasses.field(default=None, compare=False)
    bias_init: Initializer | None = dataclasses.field(default=None, compare=False)

    def resolve(self, dims: int, *, use_bias: bool) -> Scale:
        """This branch with every default written out."""
        inner = self.branch.resolve(dims, use_bias=use_bias)
        if ("scale",) in inner.leaves():
            raise ValueError(f"a scale directly after a scale: {inner.formula()}")
        if self.bias and ("bias",) in inner.leaves():
            raise ValueError(f"a bias directly after a bias: {inner.formula()}")
        return dataclasses.replace(self, branch=inner)

    def formula(self) -> str:
        """What it computes, in the grammar of names."""
        return function("scale", ["bias"] if self.bias else [], self.branch)

    @property
    def has_bias(self) -> bool:
        """Whether it or the branch inside has one."""
        return self.bias or self.branch.has_bias

    def leaves(self) -> dict[LeafPath, LeafShape]:
        """Those of the branch, `scale`, and `bias` where it has one."""
        own: dict[LeafPath, LeafShape] = {("scale",): LeafShape()}
        return self.branch.leaves() | own | ({("bias",): LeafShape()} if self.bias else {})

    def apply(self, scope: Scope, x: jax.Array, geometry: Geometry) -> jax.Array:
        """The branch, times its scale, plus its bias."""
        y = self.branch.apply(scope, x, geometry)
        shape = y.shape[-1:]
        scale = scope.leaf("scale", Request(shape, self.scale_init))
        bias = scope.leaf("bias", Request(shape, self.bias_init)) if self.bias else None
        y, scale, bias = scope.promote(y, scale, bias)
        lead = (1,) * (y.ndim - 1)
        scaled: jax.Array = y * scale.reshape((*lead, -1))
        return scaled if bias is None else scaled + bias.reshape((*lead, -1))

    def fold(self, leaves: Leaves, inputs: int, groups: int, dims: int) -> Conv:
        """The branch, composed with the scale."""
        inner = self.branch.fold(leaves, inputs, groups, dims)
        bias = leaves["bias"] if self.bias else None
        return algebra.compose(inner, algebra.channel_affine(leaves["scale"], bias, dims=dims))

    def can_absorb(self, axes: tuple[Axis, ...], *, bias: bool) -> bool:
        """As the branch inside; its own bias, where it has one, takes the bias."""
        return self.branch.can_absorb(axes, bias=bias and not self.bias)

    def absorb(self, target: Conv, leaves: Leaves, inputs: int, groups: int) -> dict[str, Any]:
        """Divide by the scale; its bias, or the branch's, takes the bias."""
        factor = leaves["scale"].astype(target.kernel.dtype)
        require_nonzero(factor, self)
        bias = target.bias
        kept = bias is not None and self.bias
        inner_bias = None if bias is None or kept else bias / factor
        inner = target.replace(kernel=target.kernel / factor, bias=inner_bias)
        new = self.branch.absorb(inner, leaves, inputs, groups)
        if not kept:
            return new
        now = self.fold(updated(leaves, new), inputs, groups, target.dims).bias
        return {**new, "bias": shifted(leaves["bias"], bias, now)}


@dataclasses.dataclass(frozen=True)
class Negate(Wrapper):
    """Minus a branch.

    Args:
        branch: what is subtracted.

    Example:
        >>> from repjax.branches import Identity
        >>> Negate(Identity()).formula()
        '-identity'
    """

    branch: Branch

    def resolve(self, dims: int, *, use_bias: bool) -> Negate:
        """This branch with every default written out."""
        return Negate(self.branch.resolve(dims, use_bias=use_bias))

    compound = True

    def formula(self) -> str:
        """What it computes, in the grammar of names."""
        inner = self.branch.formula()
        return f"-({inner})" if self.branch.compound else f"-{inner}"

    def apply(self, scope: Scope, x: jax.Array, geometry: Geometry) -> jax.Array:
        """Minus the branch."""
        return -self.branch.apply(scope, x, geometry)

    def fold(self, leaves: Leaves, inputs: int, groups: int, dims: int) -> Conv:
        """The branch with its signs changed."""
        conv: Conv = jax.tree.map(jnp.negative, self.branch.fold(leaves, inputs, groups, dims))
        return conv

    def absorb(self, target: Conv, leaves: Leaves, inputs: int, groups: int) -> dict[str, Any]:
        """The target with its signs changed."""
        inner = jax.tree.map(jnp.negative, target)
        return self.branch.absorb(inner, leaves, inputs, groups)
