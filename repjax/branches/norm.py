"""Batch norm after a branch."""

from __future__ import annotations

import dataclasses
import math
from decimal import Decimal
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
    NormRequest,
    Scope,
    get,
)
from repjax.branches.wrapper import Wrapper, function, require_nonzero, shifted, updated


@dataclasses.dataclass(frozen=True)
class Norm(Wrapper):
    """Batch norm after a branch.

    Args:
        branch: what is normalized.
        epsilon: added to the variance.
        scale: whether it has a trained scale.
        bias: whether it has a trained bias.
        scale_init: initializer of its scale; None leaves it to the block.

    Raises:
        ValueError: the branch has a norm in its node already, or epsilon is negative or not
            finite.

    Source: Ioffe and Szegedy, Batch Normalization, ICML 2015.

    Example:
        >>> from repjax.branches import KxK
        >>> Norm(KxK(3), epsilon=1e-3).resolve(2, use_bias=False).formula()
        'norm[epsilon=1e-3](conv3x3)'
    """

    branch: Branch
    epsilon: float = 1e-5
    scale: bool = True
    bias: bool = True
    scale_init: Initializer | None = dataclasses.field(default=None, compare=False)

    def resolve(self, dims: int, *, use_bias: bool) -> Norm:
        """This branch with every default written out."""
        inner = self.branch.resolve(dims, use_bias=use_bias)
        if ("norm", "mean") in inner.leaves():
            raise ValueError(
                f"a norm directly after a norm: {inner.formula()}; keep one of them (a block's "
                "norm='branch' adds one to every branch)"
            )
        try:
            epsilon = float(self.epsilon)
        except (TypeError, ValueError):
            epsilon = math.nan
        if not 0 <= epsilon < math.inf:
            raise ValueError(f"epsilon {self.epsilon}: expected a finite number, 0 or more")
        return dataclasses.replace(self, branch=inner, epsilon=epsilon)

    def formula(self) -> str:
        """What it computes, in the grammar of names."""
        attributes = [] if self.epsilon == 1e-5 else [f"epsilon={scientific(self.epsilon)}"]
        attributes += [f"{name}=no" for name in ("scale", "bias") if not getattr(self, name)]
        return function("norm", attributes, self.branch)

    @property
    def has_bias(self) -> bool:
        """Always: it subtracts a mean."""
        return True

    def leaves(self) -> dict[LeafPath, LeafShape]:
        """Those of the branch, and the node `norm`."""
        names = ["scale"] * self.scale + ["bias"] * self.bias + ["mean", "var"]
        return self.branch.leaves() | {("norm", name): LeafShape() for name in names}

    def apply(self, scope: Scope, x: jax.Array, geometry: Geometry) -> jax.Array:
        """The branch, then batch norm over what is not border."""
        y = self.branch.apply(scope, x, geometry)
        request = NormRequest(self.epsilon, self.scale, self.bias, self.scale_init)
        mask = interior(y, geometry.border)
        return scope.normalize(y, request, mask)

    def _affine(self, leaves: Leaves, dims: int) -> Conv:
        arrays = [get(leaves, "norm", name) for name in ("mean", "var", "scale", "bias")]
        return algebra.batch_norm(*arrays, epsilon=self.epsilon, dims=dims)

    def fold(self, leaves: Leaves, inputs: int, groups: int, dims: int) -> Conv:
        """The branch, composed with the norm's scale and shift."""
        inner = self.branch.fold(leaves, inputs, groups, dims)
        return algebra.compose(inner, self._affine(leaves, dims))

    def can_absorb(self, axes: tuple[Axis, ...], *, bias: bool) -> bool:
        """As the branch inside; the norm takes the bias where it has one."""
        return self.branch.can_absorb(axes, bias=bias and not self.bias)

    def absorb(self, target: Conv, leaves: Leaves, inputs: int, groups: int) -> dict[str, Any]:
        """Divide by the norm's scale; its bias, or the branch's, takes the shift."""
        affine = self._affine(leaves, target.dims).astype(target.kernel.dtype)
        assert affine.bias is not None
        factor = affine.kernel.reshape(-1)
        require_nonzero(factor, self)
        bias = target.bias
        kept = bias is not None and self.bias
        inner_bias = None if bias is None or kept else (bias - affine.bias) / factor
        inner = target.replace(kernel=target.kernel / factor, bias=inner_bias)
        new = self.branch.absorb(inner, leaves, inputs, groups)
        if not kept:
            return new
        now = self.fold(updated(leaves, new), inputs, groups, target.dims).bias
        return {**new, "norm": {"bias": shifted(leaves["norm"]["bias"], bias, now)}}


def interior(y: jax.Array, border: tuple[tuple[int, int], ...]) -> jax.Array | None:
    """Which positions are not border, broadcastable to `y`; None where all are."""
    if not any(low or high for low, high in border):
        return None
    sizes = y.shape[-1 - len(border) : -1]
    mask = jnp.ones((1,) * (y.ndim - 1 - len(border)) + (1,) * len(border) + (1,), bool)
    for number, ((low, high), size) in enumerate(zip(border, sizes, strict=True)):
        place = jnp.arange(size)
        shape = [1] * y.ndim
        shape[number - 1 - len(border)] = size
        mask = mask & ((place >= low) & (place < size - high)).reshape(shape)
    return mask


def scientific(number: float) -> str:
    """A number without a decimal point that reads back the same: 1e-3, 15e-4."""
    _, digits, exponent = Decimal(repr(number)).normalize().as_tuple()
    return f"{''.join(map(str, digits))}e{exponent}"
