"""One branch after another."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence as Sequence_

import jax

from repjax import algebra
from repjax.algebra import Conv
from repjax.algebra import geometry as lattice
from repjax.algebra.geometry import Axis
from repjax.branches.branch import Branch, Geometry, LeafPath, LeafShape, Leaves, Scope
from repjax.branches.children import channels_of, first_known, named, nest
from repjax.branches.convolution import Convolution
from repjax.branches.pool import AveragePool
from repjax.branches.sum import Sum


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


def widen(
    padding: Sequence_[tuple[int, int]], more: Sequence_[tuple[int, int]]
) -> tuple[tuple[int, int], ...]:
    """Padding grown by more padding."""
    pairs = zip(padding, more, strict=True)
    return tuple((low + a, high + b) for (low, high), (a, b) in pairs)
