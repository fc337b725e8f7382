"""One branch after another."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence as Sequence_
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from repjax import algebra
from repjax.algebra import Conv, NotFusableError
from repjax.algebra import geometry as lattice
from repjax.algebra.geometry import Axis
from repjax.branches.branch import Branch, Geometry, LeafPath, LeafShape, Leaves, Scope
from repjax.branches.children import channels_of, first_known, named, nest
from repjax.branches.convolution import Convolution
from repjax.branches.identity import Identity
from repjax.branches.norm import Norm
from repjax.branches.pool import AveragePool
from repjax.branches.sum import Sum
from repjax.branches.wrapper import require_nonzero, shifted

ROUNDINGS = 256
"""A solved shift is exact when it misses the bias by less than so many roundings."""


@dataclasses.dataclass(frozen=True)
class Sequence(Branch):
    """One branch after another; all their padding stands before the first.

    A zero padded convolution after one with a bias is no convolution at the border. Here
    the *input* is padded, so that the second branch meets at the border what the first
    makes of zeros, its bias; batch statistics are taken over the interior alone. Exact in
    inference and in training.

    Args:
        first: applied first, with strides of 1.
        second: applied to its outputs; a branch with a kernel, a pool, or a sum.
        features: channels between the two; None means the block's output channels.

    Raises:
        ValueError: the second branch has no kernel and is no pool and no sum.

    Source: Ding et al., Diverse Branch Block, CVPR 2021.

    Example:
        >>> from repjax.branches import KxK, Norm, Pointwise
        >>> Sequence(Norm(Pointwise()), KxK(3)).resolve(2, use_bias=False).formula()
        'conv3x3(norm(conv1x1))'
    """

    first: Branch
    second: Branch
    features: int | None = None

    def resolve(self, dims: int, *, use_bias: bool) -> Sequence:
        """This branch with every default written out."""
        first = self.first.resolve(dims, use_bias=use_bias)
        second = self.second.resolve(dims, use_bias=use_bias)
        if not isinstance(second, Convolution | AveragePool | Sum):
            raise ValueError(
                "the second of a Sequence has a kernel or is a sum; wrap norms and scales "
                "around the Sequence itself, and a Sequence around its first, found "
                f"{second.formula()}"
            )
        return Sequence(first, second, self.features)

    def children(self) -> tuple[Branch, ...]:
        """Both."""
        return (self.first, self.second)

    @property
    def label(self) -> str:
        """The names of both, in the order of application."""
        return f"{self.first.label}_{self.second.label}"

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(named(self.children()))

    def formula(self) -> str:
        """What it computes, in the grammar of names."""
        second = self.second.formula()
        return f"{f'({second})' if self.second.compound else second}({self.first.formula()})"

    @property
    def has_bias(self) -> bool:
        """Whether either has a bias."""
        return self.first.has_bias or self.second.has_bias

    def axes(self, dims: int) -> tuple[Axis, ...]:
        """The taps of the composition."""
        pairs = zip(self.first.axes(dims), self.second.axes(dims), strict=True)
        return tuple(lattice.composition(one, two) for one, two in pairs)

    def leaves(self) -> dict[LeafPath, LeafShape]:
        """Those of both, each in a node of its own."""
        return nest(named(self.children()))

    def inputs(self, leaves: Leaves, groups: int) -> int | None:
        """As many as the first reads, or the second, where the first keeps its channels."""
        return first_known(named(self.children()), leaves, groups)

    def channels(
        self, leaves: Leaves, inputs: int, groups: int, problems: list[tuple[LeafPath, str]]
    ) -> int:
        """Of the second, after the first."""
        for name, branch in named(self.children()).items():
            inputs = channels_of(name, branch, leaves, inputs, groups, problems)
        return inputs

    def outputs(self, inputs: int, features: int) -> int:
        """Of the second, after the first."""
        between = self.first.outputs(inputs, self.features or features)
        return self.second.outputs(between, features)

    def apply(self, scope: Scope, x: jax.Array, geometry: Geometry) -> jax.Array:
        """Both; the padding of the second is given to the first."""
        axes = self.second.axes(len(geometry.strides))
        scaled = zip(axes, geometry.dilation, strict=True)
        reach = [(axis.low * d, axis.high * d) for axis, d in scaled]
        padding = widen(geometry.padding, reach)
        before = dataclasses.replace(
            geometry,
            strides=(1,) * len(geometry.strides),
            padding=padding,
            border=tuple((max(low, 0), max(high, 0)) for low, high in padding),
            features=self.features or geometry.features,
        )
        after = dataclasses.replace(geometry, padding=tuple((-a, -b) for a, b in reach))
        y = scope.run(self.first, self._names[0], x, before)
        return scope.run(self.second, self._names[1], y, after)

    def fold(self, leaves: Leaves, inputs: int, groups: int, dims: int) -> Conv:
        """The composition, all padding in front."""
        first = self.first.fold(leaves.get(self._names[0], {}), inputs, groups, dims)
        second = self.second.fold(leaves.get(self._names[1], {}), first.features, groups, dims)
        first = first.replace(padding=widen(first.padding, second.padding))
        return algebra.compose(first, second.replace(padding=0))

    def can_absorb(self, axes: tuple[Axis, ...], *, bias: bool) -> bool:
        """Whether the first only scales and shifts channels, and the second can.

        A bias goes to the second where it has one, else to the norm in front, if such a
        shift exists.
        """
        if self.first.dims is not None or not self.second.can_absorb(axes, bias=False):
            return False
        return not bias or self.second.has_bias or self._normed

    @property
    def _normed(self) -> bool:
        first = self.first
        return isinstance(first, Norm) and first.bias and isinstance(first.branch, Identity)

    def absorb(self, target: Conv, leaves: Leaves, inputs: int, groups: int) -> dict[str, Any]:
        """Divide by the scale in front; the second takes the kernel, either takes the bias."""
        name, second = self._names
        own = leaves.get(name, {})
        first = self.first.fold(own, inputs, groups, target.dims).astype(target.kernel.dtype)
        scale = first.kernel.reshape(-1)
        require_nonzero(scale, self.first)
        kernel = target.kernel / _per_input(scale, target)
        inner = target.replace(kernel=kernel, bias=None)
        new: dict[str, Any] = {}
        if target.bias is not None and self.second.has_bias:
            shift = jnp.zeros(()) if first.bias is None else _per_input(first.bias, target)
            reached = (kernel * shift).reshape(-1, target.features).sum(axis=0)
            inner = inner.replace(bias=target.bias - reached)
        elif target.bias is not None:
            bias = self._shift(inner, target.bias)
            new = {name: {"norm": {"bias": shifted(own["norm"]["bias"], bias, first.bias)}}}
        return {**new, second: self.second.absorb(inner, leaves[second], inputs, groups)}

    def _shift(self, conv: Conv, bias: jax.Array) -> jax.Array:
        """The shift in front of a convolution that comes out as that bias.

        Raises:
            NotFusableError: there is none, where the arrays are concrete; NaN elsewhere.
        """
        taps = conv.kernel.reshape(-1, *conv.kernel.shape[-2:]).sum(axis=0)
        group = jnp.arange(conv.features) // (conv.features // conv.groups)
        same = group == jnp.arange(conv.groups)[:, None]
        spread = jnp.where(same[:, None], taps[None], 0).reshape(-1, conv.features)
        with jax.default_matmul_precision("highest"):
            shift = jnp.linalg.lstsq(spread.T, bias)[0]
            left = jnp.abs(shift @ spread - bias)
            magnitude = jnp.abs(shift) @ jnp.abs(spread) + jnp.abs(bias)
        exact = (left <= ROUNDINGS * np.finfo(bias.dtype).eps * magnitude).all()
        if not isinstance(exact, jax.core.Tracer) and not bool(exact):
            raise NotFusableError(
                f"{self.formula()} has no bias of its own, and no shift in front of it comes out "
                "as the deploy tree's bias"
            )
        return jnp.where(exact, shift, jnp.nan)


def _per_input(values: jax.Array, conv: Conv) -> jax.Array:
    """One value per input channel, laid along the last two axes of a grouped kernel."""
    by_group = values.reshape(conv.groups, -1).T
    return jnp.repeat(by_group, conv.features // conv.groups, axis=1)


def widen(
    padding: Sequence_[tuple[int, int]], more: Sequence_[tuple[int, int]]
) -> tuple[tuple[int, int], ...]:
    """Padding grown by more padding."""
    pairs = zip(padding, more, strict=True)
    return tuple((low + a, high + b) for (low, high), (a, b) in pairs)
