"""What stands around one branch, above all a norm."""

from __future__ import annotations

import dataclasses
import math
from decimal import Decimal
from typing import Any

import jax
import jax.numpy as jnp

from repjax import algebra
from repjax.algebra import Conv, NotFusableError
from repjax.algebra.geometry import Axis
from repjax.branches.branch import Branch, Geometry, Initializer, Leaf, Leaves, Path, Scope, get


class Around(Branch):
    """What stands around one branch and lives in its node: norm, scale, minus, merging."""

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

    def leaves(self) -> dict[Path, Leaf]:
        """As the branch inside."""
        return self.branch.leaves()

    def inputs(self, leaves: Leaves, groups: int) -> int | None:
        """As the branch inside."""
        return self.branch.inputs(leaves, groups)

    def channels(
        self, leaves: Leaves, inputs: int, groups: int, problems: list[tuple[Path, str]]
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


@dataclasses.dataclass(frozen=True)
class Norm(Around):
    """Batch norm after a branch.

    Args:
        branch: what is normalised.
        epsilon: added to the variance.
        scale: whether it has a trained scale.
        bias: whether it has a trained bias.
        scale_init: initialiser of its scale; None leaves it to the block.

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

    def leaves(self) -> dict[Path, Leaf]:
        """Those of the branch, and the node `norm`."""
        names = ["scale"] * self.scale + ["bias"] * self.bias + ["mean", "var"]
        return self.branch.leaves() | {("norm", name): Leaf() for name in names}

    def apply(self, scope: Scope, x: jax.Array, geometry: Geometry) -> jax.Array:
        """The branch, then batch norm over what is not border."""
        y = self.branch.apply(scope, x, geometry)
        mask = interior(y, geometry.border)
        return scope.normalise(y, self.epsilon, self.scale, self.bias, mask, self.scale_init)

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
        norm = {}
        if bias is not None and self.bias:
            now = self.fold(leaves, inputs, groups, target.dims).bias
            norm = {"norm": {"bias": shifted(leaves["norm"]["bias"], bias, now)}}
            bias = None
        elif bias is not None:
            bias = (bias - affine.bias) / factor
        inner = target.replace(kernel=target.kernel / factor, bias=bias)
        return {**self.branch.absorb(inner, leaves, inputs, groups), **norm}


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


def shifted(own: jax.Array, wanted: jax.Array, now: jax.Array | None) -> jax.Array:
    """A bias of its own with which a branch folds to the bias `wanted`, where it is `now`."""
    assert now is not None, "who has a bias of its own folds to one with a bias"
    bias = own.astype(wanted.dtype) + (wanted - now.astype(wanted.dtype))
    return bias.astype(own.dtype)


def require_nonzero(factor: jax.Array, branch: Branch) -> None:
    """Refuse to divide by a scale known to be zero."""
    if not isinstance(factor, jax.core.Tracer) and bool((factor == 0).any()):
        zeros = jnp.flatnonzero(factor == 0).tolist()
        raise NotFusableError(f"the scale of {branch.formula()} is zero on channels {zeros}")


def function(name: str, attributes: list[str], branch: Branch) -> str:
    """A name applied to a branch."""
    suffix = f"[{','.join(attributes)}]" if attributes else ""
    return f"{name}{suffix}({branch.formula()})"


def scientific(number: float) -> str:
    """A number without a decimal point that reads back the same: 1e-3, 15e-4."""
    _, digits, exponent = Decimal(repr(number)).normalize().as_tuple()
    return f"{''.join(map(str, digits))}e{exponent}"
