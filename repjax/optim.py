"""Gradient re-parameterization: train the plain network as if it had the branches.

Where a fold is affine in its trained arrays, with Jacobian J, plain gradient descent on the
branches moves the folded kernel by ``J Jᵀ g``: one transposed and one forward application.
Momentum, Nesterov's too, is linear and commutes with it. What is not linear in the gradient
ends the equality: clipping by a norm that was taken of the plain gradients, and moments of
second order, for which `branch_update` stands after the moments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import optax

from repjax._carry import carry_state
from repjax._fold_map import FoldMap, fold_maps
from repjax.trees.containers import TreePath, at

__all__ = ["branch_decay", "branch_gradient", "branch_update", "carry_state"]

Constants = Callable[[str], bool]


def branch_gradient(tree: Mapping[str, Any], constants: Constants) -> optax.GradientTransformation:
    """Gradients of a plain network, as its branches would have moved it.

    ``optax.chain(branch_gradient(tree, constants), optax.sgd(...))`` on ``fuse_params(tree)``
    takes the steps that ``optax.sgd(...)`` takes on the branches. Where ``J Jᵀ`` is diagonal
    it is one multiplier per weight (RepOptimizers' own, for every kernel size and group
    count) and is applied as one; elsewhere (pools, masks, a pointwise before a KxK) as an
    operator. Start from the values of ``fuse_params(tree)``, and put weight decay after it:
    `branch_decay`, or `optax.add_decayed_weights` where no bare identity is among the branches.

    Args:
        tree: the network with branches, as `fuse_params` takes it; of the trained arrays only
            the shapes count.
        constants: which arrays the branches would hold fixed, by path
            ("conv/y=conv3x3+scale(conv1x1)/conv1x1/scale"). Masks always are.

    Returns:
        A transformation of the gradients of `fuse_params(tree)`, or of its `params` alone.

    Raises:
        ValueError: two trained arrays are multiplied (both paths are named; hold one of them
            constant), a block has a norm, or nothing in it is trained.
        MalformedTreeError: `tree` is damaged.

    Source: Ding et al., Re-parameterizing Your Optimizers rather than Architectures, ICLR
    2023; as the fold's Jacobian, here.

    Example:
        >>> import jax, jax.numpy as jnp, repjax
        >>> from repjax.branches import Pointwise, Scale
        >>> plain = {"conv": {"kernel": jnp.ones((3, 3, 1, 1))}}
        >>> tree = repjax.add_branches(plain, (Scale(Pointwise()),), jax.random.key(0))
        >>> transform = branch_gradient(tree, lambda path: path.endswith("scale"))
        >>> moved, _ = transform.update(plain, transform.init(plain))
        >>> moved["conv"]["kernel"][1, :, 0, 0].tolist()
        [1.0, 2.0, 1.0]
    """
    maps = fold_maps(tree, constants)
    multipliers = {path: one.multiplier() for path, one in maps.items()}

    def moved(path: TreePath, gradient: Any) -> Any:
        factor = multipliers[path]
        return maps[path].normal(gradient) if factor is None else times(gradient, factor)

    return _transformation(maps, lambda path, gradient, _: moved(path, gradient))


def branch_update(tree: Mapping[str, Any], constants: Constants) -> optax.GradientTransformation:
    """Updates of a plain network by Adam, as those of its branches would have moved it.

    ``optax.chain(optax.scale_by_adam(), branch_update(tree, constants), ...)``: Adam divides
    by the size of the gradient, so a constant in front of a branch does not reach the
    update of its array, and meets the kernel once: the multiplier is the sum of the
    constants' magnitudes. Equal up to Adam's epsilon, which a multiplied gradient meets with
    another weight. The sign of a constant leaves Adam's steps as they are, so it does not
    count here; RepOptimizers' own factor is right for positive ones alone.

    Args:
        tree: as of `branch_gradient`.
        constants: as of `branch_gradient`.

    Returns:
        A transformation of updates of `fuse_params(tree)`, or of its `params` alone.

    Raises:
        ValueError: as `branch_gradient`; and where an array of a branch meets several weights
            of the kernel (pools, masks, a pointwise before a KxK), which has its own second
            moments that the plain kernel's do not tell.
        MalformedTreeError: `tree` is damaged.

    Source: Ding et al., Re-parameterizing Your Optimizers rather than Architectures, ICLR 2023.

    Example:
        >>> import jax, jax.numpy as jnp, repjax
        >>> from repjax.branches import Pointwise
        >>> plain = {"conv": {"kernel": jnp.ones((3, 3, 1, 1))}}
        >>> tree = repjax.add_branches(plain, (Pointwise(),), jax.random.key(0))
        >>> transform = branch_update(tree, lambda path: False)
        >>> moved, _ = transform.update(plain, transform.init(plain))
        >>> moved["conv"]["kernel"][1, :, 0, 0].tolist()
        [1.0, 2.0, 1.0]
    """
    maps = fold_maps(tree, constants)
    for one in maps.values():
        one.require_one_to_one()
    factors = {path: one.magnitudes() for path, one in maps.items()}
    return _transformation(maps, lambda path, update, _: times(update, factors[path]))


def branch_decay(
    weight_decay: float, tree: Mapping[str, Any], constants: Constants
) -> optax.GradientTransformation:
    """Weight decay of the branches' trained arrays, seen from the folded kernel.

    Decayed branches shrink what is trained: the kernel less the constant that a bare identity
    adds. Kernels of the blocks in `tree` alone are decayed, no biases; place it after
    `branch_gradient` and before the momentum, or after `branch_update` for AdamW.

    Args:
        weight_decay: the rate.
        tree: as of `branch_gradient`.
        constants: as of `branch_gradient`.

    Returns:
        A transformation that needs the parameters.

    Raises:
        ValueError: as `branch_gradient`.

    Source: Ding et al., Re-parameterizing Your Optimizers rather than Architectures, ICLR 2023.

    Example:
        >>> import jax, jax.numpy as jnp, repjax
        >>> from repjax.branches import Identity
        >>> plain = {"conv": {"kernel": jnp.ones((1, 1, 1, 1))}}
        >>> tree = repjax.add_branches(plain, (Identity(),), jax.random.key(0))
        >>> transform = branch_decay(0.5, tree, lambda path: False)
        >>> zero = jax.tree.map(jnp.zeros_like, plain)
        >>> decayed, _ = transform.update(zero, transform.init(plain), plain)
        >>> float(decayed["conv"]["kernel"][0, 0, 0, 0])  # half of 1 - 1
        0.0
    """
    maps = fold_maps(tree, constants)
    offsets = {path: one.offset()["kernel"] for path, one in maps.items()}

    def decayed(path: TreePath, update: Any, params: Any) -> Any:
        if params is None:
            raise ValueError("branch_decay needs the parameters: update(gradients, state, params)")
        kernel, own = update["kernel"], params["kernel"]
        shrunk = weight_decay * (own - offsets[path].astype(own.dtype))
        return {**update, "kernel": kernel + shrunk.astype(kernel.dtype)}

    return _transformation(maps, decayed)


def times(update: Any, factor: Any) -> Any:
    """A kernel's and a bias's update, each times its factor, in the update's type."""
    return {name: leaf * factor[name].astype(leaf.dtype) for name, leaf in update.items()}


def _transformation(
    maps: Mapping[TreePath, FoldMap], change: Callable[[TreePath, Any, Any], Any]
) -> optax.GradientTransformation:
    """The change of the modules of folded blocks; everything else passes."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        inside = isinstance(updates, Mapping) and isinstance(updates.get("params"), Mapping)
        lead = ("params",) if inside else ()
        for path, one in maps.items():
            module, own = at(updates, (*lead, *path)), at(params, (*lead, *path))
            if not isinstance(module, Mapping):
                raise ValueError(f"{one.at()}: no such module among the updates")
            leaves = {name: module[name] for name in one.outputs}
            if any(isinstance(leaf, optax.MaskedNode) for leaf in leaves.values()):
                continue
            new = change(path, leaves, own)
            updates = _replaced(updates, (*lead, *path), {**module, **new})
        return updates, state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _replaced(tree: Any, path: TreePath, value: Any) -> Any:
    if not path:
        return value
    below = _replaced(tree[path[0]], path[1:], value)
    if isinstance(tree, Mapping):
        return type(tree)({**tree, path[0]: below})  # type: ignore[call-arg]
    return type(tree)(below if place == path[0] else item for place, item in enumerate(tree))
