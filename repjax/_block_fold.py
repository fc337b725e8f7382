"""The fold of a block as a function of flat arrays, its Jacobian J, and what that is like.

Compiled once for all blocks of the same branches and shapes.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from repjax.branches import Branch
from repjax.trees.containers import TreePath

Arrays = dict[TreePath, Any]


@dataclasses.dataclass(frozen=True)
class BlockFold:
    """What a block folds to, as a function of its trained and its other arrays.

    Attributes:
        branch: what the block is.
        inputs: input channels.
        groups: channel groups.
        dims: number of spatial axes.
    """

    branch: Branch
    inputs: int
    groups: int
    dims: int

    @property
    def outputs(self) -> tuple[str, ...]:
        """What it folds to."""
        return ("kernel", "bias") if self.branch.has_bias else ("kernel",)

    def __call__(self, trained: Arrays, fixed: Arrays) -> dict[str, Any]:
        """Kernel and bias, in the type of the trained arrays."""
        arrays: dict[str, Any] = {}
        for path, value in (trained | fixed).items():
            node = arrays
            for name in path[:-1]:
                node = node.setdefault(name, {})
            node[path[-1]] = value
        conv = self.branch.fold(arrays, self.inputs, self.groups, self.dims)
        dtype = jnp.result_type(*trained.values())
        both: dict[str, Any] = {"kernel": conv.kernel, "bias": conv.bias}
        return {name: both[name].astype(dtype) for name in self.outputs}


_compiled = functools.partial(jax.jit, static_argnums=0, inline=True)


@_compiled
def folded(fold: BlockFold, trained: Arrays, fixed: Arrays) -> dict[str, Any]:
    """Kernel and bias."""
    return fold(trained, fixed)


@_compiled
def forward(fold: BlockFold, change: Arrays, fixed: Arrays) -> dict[str, Any]:
    """J applied to a change of trained arrays."""
    start = jax.tree.map(jnp.zeros_like, change)
    moved: dict[str, Any] = jax.jvp(lambda arrays: fold(arrays, fixed), (start,), (change,))[1]
    return moved


@_compiled
def backward(fold: BlockFold, outputs: Any, trained: Arrays, fixed: Arrays) -> Arrays:
    """Jᵀ applied to a gradient of kernel and bias."""
    found, pullback = jax.vjp(lambda arrays: fold(arrays, fixed), trained)
    (change,) = pullback({name: outputs[name].astype(found[name].dtype) for name in found})
    return dict(change)


@_compiled
def normal(fold: BlockFold, outputs: Any, trained: Arrays, fixed: Arrays) -> dict[str, Any]:
    """``J Jᵀ`` applied to a gradient of kernel and bias."""
    moved = forward(fold, backward(fold, outputs, trained, fixed), fixed)
    return {name: moved[name].astype(outputs[name].dtype) for name in moved}


@_compiled
def bends(fold: BlockFold, point: Arrays, fixed: Arrays, one: Arrays, two: Arrays) -> jax.Array:
    """Whether the fold has a second derivative at a point, along two changes."""

    def first(arrays: Arrays) -> Any:
        return jax.jvp(lambda inner: fold(inner, fixed), (arrays,), (one,))[1]

    second = jax.jvp(first, (point,), (two,))[1]
    return jnp.stack([(leaf != 0).any() for leaf in jax.tree.leaves(second)]).any()


class Probe(NamedTuple):
    """What J is like, restricted to some trained arrays.

    Attributes:
        diagonal: ``J Jᵀ`` is one number per weight.
        one_to_one: each number of those arrays meets one weight, and each weight one of them.
    """

    diagonal: Any
    one_to_one: Any


@_compiled
def probed(fold: BlockFold, direction: Any, trained: Arrays, fixed: Arrays, only: Arrays) -> Probe:
    """Find out along one direction; `only` weighs the trained arrays by one or zero."""

    def restricted(outputs: Any) -> Any:
        change = backward(fold, outputs, trained, fixed)
        return forward(fold, {path: only[path] * leaf for path, leaf in change.items()}, fixed)

    ones = jax.tree.map(jnp.ones_like, direction)
    whole, factor = restricted(direction), restricted(ones)
    share = forward(
        fold, {path: only[path] * jnp.ones_like(leaf) for path, leaf in trained.items()}, fixed
    )
    return Probe(
        _close(whole, {name: factor[name] * direction[name] for name in direction}),
        _close(whole, {name: share[name] ** 2 * direction[name] for name in direction}),
    )


def _close(one: Any, two: Any) -> jax.Array:
    near = [
        (jnp.abs(one[name] - two[name]) <= 1e-2 * jnp.abs(two[name]).max() + 1e-30).all()
        for name in one
    ]
    return jnp.stack(near).all()
