"""The sum of branches."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp

from repjax import algebra
from repjax.algebra import Conv, NotFusableError
from repjax.algebra import geometry as lattice
from repjax.algebra.geometry import Axis
from repjax.branches.branch import Branch, Geometry, LeafPath, LeafShape, Leaves, Scope
from repjax.branches.children import channels_of, first_known, named, nest, require_outputs
from repjax.branches.scale import Negate
from repjax.branches.short import shortened


@dataclasses.dataclass(frozen=True)
class Sum(Branch):
    """The sum of branches, each in a node of its own.

    Args:
        branches: what is added up.

    Raises:
        ValueError: there are no branches.

    Example:
        >>> from repjax.branches import Identity, KxK
        >>> Sum((KxK(3), Identity())).resolve(2, use_bias=False).formula()
        'conv3x3+identity'
    """

    branches: tuple[Branch, ...]

    def resolve(self, dims: int, *, use_bias: bool) -> Branch:
        """This branch with every default written out; a single one stands for itself."""
        if not self.branches:
            raise ValueError("a sum needs at least one branch")
        resolved = tuple(branch.resolve(dims, use_bias=use_bias) for branch in self.branches)
        return resolved[0] if len(resolved) == 1 else Sum(resolved)

    def children(self) -> tuple[Branch, ...]:
        """All of them."""
        return self.branches

    label = "sum"

    @property
    def compound(self) -> bool:
        """Whether no short word stands for it."""
        written = self._written_out()
        return shortened(written) == written

    def formula(self) -> str:
        """What it computes; equal neighbors are counted, known sets have a short word."""
        return shortened(self._written_out())

    def _written_out(self) -> str:
        text = ""
        for _, equal in itertools.groupby(self.branches, key=lambda branch: branch.formula()):
            branch, *more = equal
            count = 1 + len(more)
            inner = branch.branch if isinstance(branch, Negate) else branch
            text += "-" if isinstance(branch, Negate) else "+" if text else ""
            text += f"{count}*" if count > 1 else ""
            text += f"({inner.formula()})" if inner.compound else inner.formula()
        return text

    def named(self) -> dict[str, Branch]:
        """The branches by the names of their nodes."""
        return named(self.branches)

    @property
    def has_bias(self) -> bool:
        """Whether any has a bias."""
        return any(branch.has_bias for branch in self.branches)

    def axes(self, dims: int) -> tuple[Axis, ...]:
        """The coarsest lattice that holds the taps of all."""
        every = zip(*(branch.axes(dims) for branch in self.branches), strict=True)
        return tuple(lattice.union(axes) for axes in every)

    def leaves(self) -> dict[LeafPath, LeafShape]:
        """Those of all, each in a node of its own."""
        return nest(self.named())

    def inputs(self, leaves: Leaves, groups: int) -> int | None:
        """As many as the first with a kernel reads."""
        return first_known(self.named(), leaves, groups)

    def channels(
        self, leaves: Leaves, inputs: int, groups: int, problems: list[tuple[LeafPath, str]]
    ) -> int:
        """As many as the first with a kernel has; all must agree."""
        found = {
            name: channels_of(name, branch, leaves, inputs, groups, problems)
            for name, branch in self.named().items()
        }
        kernels = [name for name, b in self.named().items() if b.dims is not None]
        features = found[(kernels or list(found))[0]]
        for name, number in found.items():
            if number != features:
                problems.append(((name,), f"has {number} output channels, expected {features}"))
        return features

    def outputs(self, inputs: int, features: int) -> int:
        """As many as asked for; all must agree."""
        for branch in self.branches:
            require_outputs(branch, inputs, features)
        return features

    def apply(self, scope: Scope, x: jax.Array, geometry: Geometry) -> jax.Array:
        """All of them, added in order."""
        outputs = [scope.run(branch, name, x, geometry) for name, branch in self.named().items()]
        return functools.reduce(jnp.add, outputs)

    def fold(self, leaves: Leaves, inputs: int, groups: int, dims: int) -> Conv:
        """Their folds, added."""
        return algebra.add(
            *(
                branch.fold(leaves.get(name, {}), inputs, groups, dims)
                for name, branch in self.named().items()
            )
        )

    def _absorber(self, axes: tuple[Axis, ...], bias: bool) -> str | None:
        able = (n for n, b in self.named().items() if b.can_absorb(axes, bias=bias))
        return next(able, None)

    def can_absorb(self, axes: tuple[Axis, ...], *, bias: bool) -> bool:
        """Whether one of them can."""
        return self._absorber(axes, bias) is not None

    def absorb(self, target: Conv, leaves: Leaves, inputs: int, groups: int) -> dict[str, Any]:
        """The first branch that can absorb takes the target minus all the others.

        Raises:
            NotFusableError: no branch can.
        """
        named = self.named()
        chosen = self._absorber(target.axes, target.bias is not None)
        if chosen is None:
            raise NotFusableError(no_absorber(self, target))
        others = [
            Negate(branch).fold(leaves.get(name, {}), inputs, groups, target.dims)
            for name, branch in named.items()
            if name != chosen
        ]
        rest = algebra.add(target, *others)
        rest = rest.replace(bias=None) if target.bias is None else rest
        return {chosen: named[chosen].absorb(rest, leaves[chosen], inputs, groups)}


def no_absorber(branch: Branch, target: Conv) -> str:
    """Why nothing in a sum can take the target."""
    size = "x".join(map(str, target.kernel_size))
    needs = " with a bias" if target.bias is not None else ""
    return f"no branch of {branch.formula()} has a {size} kernel of its own{needs}"
