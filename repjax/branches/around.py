"""What stands around one branch: a norm, a scale, a minus."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from typing import Any

import jax
import jax.numpy as jnp

from repjax import algebra
from repjax.algebra import Conv, NotFusableError
from repjax.algebra.geometry import Axis
from repjax.branches.branch import Branch, Geometry, Leaf, Leaves, Path, Scope, get


class _Around(Branch):
    """What norm, scale and negation share: one branch inside, whose node they live in."""

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

    def can_absorb(self, axes: tuple[Axis, ...], *, bias: bool) -> bool:
        """As the branch inside."""
        return self.branch.can_absorb(axes, bias=bias)


@dataclasses.dataclass(frozen=True)
class Norm(_Around):
    """Batch norm after a branch.

    Args:
        branch: what is normalised.
        epsilon: added to the variance.
        scale: whether it has a trained scale.
        bias: whether it has a trained bias.

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

    def resolve(self, dims: int, *, use_bias: bool) -> Norm:
        """This branch with every default written out."""
        inner = self.branch.resolve(dims, use_bias=use_bias)
        if ("norm", "mean") in inner.leaves():
            raise ValueError(f"a norm directly after a norm: {inner.formula()}")
        return dataclasses.replace(self, branch=inner)

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
        return scope.normalise(y, self.epsilon, self.scale, self.bias, mask)

    def _affine(self, leaves: Leaves, dims: int) -> Conv:
        arrays = [get(leaves, "norm", name) for name in ("mean", "var", "scale", "bias")]
        return algebra.batch_norm(*arrays, epsilon=self.epsilon, dims=dims)

    def fold(self, leaves: Leaves, inputs: int, groups: int, dims: int) -> Conv:
        """The branch, composed with the norm's scale and shift."""
        inner = self.branch.fold(leaves, inputs, groups, dims)
        return algebra.compose(inner, self._affine(leaves, dims))

    def can_absorb(self, axes: tuple[Axis, ...], *, bias: bool) -> bool:
        """As the branch inside; the norm takes the bias where it has one."""
        inner = self.branch.has_bias if self.bias else True
        return self.branch.can_absorb(axes, bias=inner)

    def absorb(self, target: Conv, leaves: Leaves, inputs: int, groups: int) -> dict[str, Any]:
        """Divide by the norm's scale; its bias, or the branch's, takes the shift."""
        affine = self._affine(leaves, target.dims)
        assert affine.bias is not None
        factor = affine.kernel.reshape(-1)
        require_nonzero(factor, self)
        wanted = jnp.zeros((), factor.dtype) if target.bias is None else target.bias
        kernel = target.kernel / factor
        if not self.bias:
            inner = target.replace(kernel=kernel, bias=(wanted - affine.bias) / factor)
            return self.branch.absorb(inner, leaves, inputs, groups)
        kept = self.branch.fold(leaves, inputs, groups, target.dims).bias
        inner = target.replace(kernel=kernel, bias=kept)
        norm = dict(leaves["norm"])
        shift = wanted - (affine.bias - norm["bias"].astype(factor.dtype))
        if kept is not None:
            shift = shift - kept * factor
        norm["bias"] = shift.astype(norm["bias"].dtype)
        return {**self.branch.absorb(inner, leaves, inputs, groups), "norm": norm}


@dataclasses.dataclass(frozen=True)
class Scale(_Around):
    """A trained scale per channel after a branch (layer scale).

    Source: Touvron et al., CaiT, ICCV 2021.

    Example:
        >>> from repjax.branches import Identity
        >>> Scale(Identity()).formula()
        'scale(identity)'
    """

    branch: Branch

    def resolve(self, dims: int, *, use_bias: bool) -> Scale:
        """This branch with every default written out."""
        inner = self.branch.resolve(dims, use_bias=use_bias)
        if ("scale",) in inner.leaves():
            raise ValueError(f"a scale directly after a scale: {inner.formula()}")
        return Scale(inner)

    def formula(self) -> str:
        """What it computes, in the grammar of names."""
        return function("scale", [], self.branch)

    def leaves(self) -> dict[Path, Leaf]:
        """Those of the branch, and `scale`."""
        return self.branch.leaves() | {("scale",): Leaf()}

    def apply(self, scope: Scope, x: jax.Array, geometry: Geometry) -> jax.Array:
        """The branch, times its scale."""
        y = self.branch.apply(scope, x, geometry)
        y, scale = scope.promote(y, scope.leaf("scale", (y.shape[-1],)))
        scaled: jax.Array = y * scale.reshape((1,) * (y.ndim - 1) + (-1,))
        return scaled

    def fold(self, leaves: Leaves, inputs: int, groups: int, dims: int) -> Conv:
        """The branch, composed with the scale."""
        inner = self.branch.fold(leaves, inputs, groups, dims)
        return algebra.compose(inner, algebra.channel_affine(leaves["scale"], dims=dims))

    def absorb(self, target: Conv, leaves: Leaves, inputs: int, groups: int) -> dict[str, Any]:
        """Divide by the scale."""
        factor = leaves["scale"].astype(target.kernel.dtype)
        require_nonzero(factor, self)
        bias = None if target.bias is None else target.bias / factor
        inner = target.replace(kernel=target.kernel / factor, bias=bias)
        return self.branch.absorb(inner, leaves, inputs, groups)


@dataclasses.dataclass(frozen=True)
class Negate(_Around):
    """Minus a branch.

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
