"""The fold of a block as an affine map of its trained arrays, found by differentiating it."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from repjax.branches import Norm
from repjax.branches.branch import get
from repjax.trees import find
from repjax.trees.containers import TreePath
from repjax.trees.problems import CheckedBlock, examine_all, raise_all
from repjax.trees.register import registered

Arrays = dict[TreePath, Any]


@dataclasses.dataclass(frozen=True)
class FoldMap:
    """A block's fold, as a function of the arrays that are trained, the others held fixed.

    Attributes:
        block: whose fold it is.
        trained: zeros like the trained arrays; an affine map has one Jacobian everywhere.
        fixed: the arrays that are held.
    """

    block: CheckedBlock
    trained: Arrays
    fixed: Arrays

    @property
    def where(self) -> str:
        """The block's path in words."""
        return self.block.node.at()

    @property
    def outputs(self) -> tuple[str, ...]:
        """What it folds to."""
        return ("kernel", "bias") if self.block.branch.has_bias else ("kernel",)

    def fold(self, trained: Arrays, fixed: Arrays) -> dict[str, Any]:
        """Kernel and bias."""
        block = self.block
        arrays: dict[str, Any] = {}
        for path, value in (trained | fixed).items():
            node = arrays
            for name in path[:-1]:
                node = node.setdefault(name, {})
            node[path[-1]] = value
        conv = block.branch.fold(arrays, block.inputs, block.groups, block.dims)
        dtype = jnp.result_type(*trained.values())
        both: dict[str, Any] = {"kernel": conv.kernel, "bias": conv.bias}
        return {name: both[name].astype(dtype) for name in self.outputs}

    def offset(self) -> dict[str, Any]:
        """What it folds to with nothing trained: the constant of bare identities and masks."""
        return self.fold(self.trained, self.fixed)

    def ones(self) -> dict[str, Any]:
        """Ones like what it folds to."""
        return {name: jnp.ones_like(leaf) for name, leaf in self.offset().items()}

    def forward(self, trained: Arrays, fixed: Arrays) -> dict[str, Any]:
        """J applied to a change of trained arrays."""
        result: dict[str, Any] = jax.jvp(
            lambda arrays: self.fold(arrays, fixed), (self.trained,), (trained,)
        )[1]
        return result

    def normal(self, outputs: Any, fixed: Arrays | None = None, of: Any = None) -> dict[str, Any]:
        """``J Jᵀ`` applied to a gradient; `of` one trained array alone, on request."""
        held = self.fixed if fixed is None else fixed
        folded, pullback = jax.vjp(lambda arrays: self.fold(arrays, held), self.trained)
        (change,) = pullback({name: outputs[name].astype(folded[name].dtype) for name in folded})
        moved = self.forward(change if of is None else self._alone(change, of), held)
        return {name: moved[name].astype(outputs[name].dtype) for name in moved}

    def _alone(self, change: Arrays, path: TreePath) -> Arrays:
        return {p: leaf if p == path else jnp.zeros_like(leaf) for p, leaf in change.items()}

    def _shares(self, fixed: Arrays) -> dict[TreePath, dict[str, Any]]:
        """J of ones in one trained array, for each of them."""
        ones = jax.tree.map(jnp.ones_like, self.trained)
        return {path: self.forward(self._alone(ones, path), fixed) for path in self.trained}

    def magnitudes(self) -> dict[str, Any]:
        """For every weight, the sum of the magnitudes of the constants in front of the trained."""
        shares = (jax.tree.map(jnp.abs, share) for share in self._shares(self.fixed).values())
        return functools.reduce(lambda one, two: jax.tree.map(jnp.add, one, two), shares)

    @functools.cached_property
    def _probe(self) -> tuple[Arrays, dict[str, Any]]:
        """Constants of size one in the places of those that are not zero, and a direction."""
        keys = iter(jax.random.split(jax.random.key(0), len(self.fixed) + 2))

        def drawn(leaf: Any) -> jax.Array:
            return jax.random.uniform(next(keys), leaf.shape, leaf.dtype, 0.5, 1.5)

        held = {
            path: drawn(leaf) * (1 if isinstance(leaf, jax.core.Tracer) else leaf != 0)
            for path, leaf in self.fixed.items()
        }
        return held, {name: drawn(leaf) for name, leaf in self.ones().items()}

    @functools.cached_property
    def diagonal(self) -> bool:
        """Whether ``J Jᵀ`` is one multiplier per weight."""
        held, direction = self._probe
        whole, factor = self.normal(direction, held), self.normal(self.ones(), held)
        return all(_close(whole[n], factor[n] * direction[n]) for n in direction)

    def require_one_to_one(self) -> None:
        """Refuse a block of which some trained array meets several weights, or several meet one.

        Raises:
            ValueError: one does.
        """
        held, direction = self._probe
        for path, share in self._shares(held).items():
            found = self.normal(direction, held, of=path)
            if not all(_close(found[n], share[n] ** 2 * direction[n]) for n in direction):
                raise ValueError(
                    f"{self.block.node.at(*path)}: one number of it meets several weights of the "
                    "kernel, whose second moments do not tell its own; train this block through "
                    "fuse_params, or with branch_gradient and SGD"
                )

    def require_affine(self) -> None:
        """Refuse a fold that multiplies trained arrays.

        Raises:
            ValueError: it does, with both paths.
        """
        keys = iter(jax.random.split(jax.random.key(1), 2 * len(self.trained) + len(self.fixed)))
        points, steps, held = (
            {p: jax.random.normal(next(keys), leaf.shape, leaf.dtype) for p, leaf in tree.items()}
            for tree in (self.trained, self.trained, self.fixed)
        )

        def mixed(one: Arrays, two: Arrays) -> bool:
            def first(arrays: Arrays) -> Any:
                return jax.jvp(lambda a: self.fold(a, held), (arrays,), (one,))[1]

            second = jax.jvp(first, (points,), (two,))[1]
            return any(bool((leaf != 0).any()) for leaf in jax.tree.leaves(second))

        with jax.ensure_compile_time_eval():
            if not mixed(steps, steps):
                return
            pairs = itertools.combinations_with_replacement(self.trained, 2)
            paths = next(
                (pair for pair in pairs if mixed(*(self._alone(steps, p) for p in pair))), ()
            )
        both = " and ".join(self.block.node.at(*path) for path in paths)
        raise ValueError(
            f"{both} are both trained and multiplied, so no constant factor of the gradient moves "
            "the kernel as they do; hold one of them constant (constants=), or train through "
            "repjax.fuse_params"
        )


def fold_maps(tree: Mapping[str, Any], constants: Callable[[str], bool]) -> dict[TreePath, FoldMap]:
    """The folds of all blocks of a tree, by the paths of their modules.

    Raises:
        TypeError: `constants` is no function.
        ValueError: they are not affine in what is trained, or there is no block.
        MalformedTreeError: the tree is damaged.
    """
    if not callable(constants):
        raise TypeError(
            f"constants is a function from the path of an array to true or false, found "
            f"{constants!r}; for none: lambda path: False"
        )
    parts = find.collections(tree, "tree")
    problems: list[str] = []
    nodes = find.blocks(parts, problems)
    problems += [
        f"{node.at()}: a registered block, whose trained arrays are not known"
        for node in nodes
        if node.name in registered()
    ]
    blocks = examine_all([node for node in nodes if node.name not in registered()], problems)
    raise_all(problems)
    if not blocks:
        raise ValueError("no block with branches in tree; see repjax.add_branches")
    return {block.node.path: _fold_map(block, constants) for block in blocks}


def _fold_map(block: CheckedBlock, constants: Callable[[str], bool]) -> FoldMap:
    if any(isinstance(part, Norm) for part in block.branch.walk()):
        raise ValueError(
            f"{block.node.at()}: has a norm, whose batch statistics are not linear in the kernel; "
            "expected branches without one"
        )
    arrays = {path: jnp.asarray(get(block.node.arrays, *path)) for path in block.branch.leaves()}
    held = {p for p in arrays if p[-1] == "mask" or constants(block.node.at(*p))}
    trained = {path: jnp.zeros_like(leaf) for path, leaf in arrays.items() if path not in held}
    if not trained:
        raise ValueError(f"{block.node.at()}: constants= holds all of its arrays")
    one = FoldMap(block, trained, {path: arrays[path] for path in held})
    one.require_affine()
    return one


def _close(one: jax.Array, two: jax.Array) -> bool:
    with jax.ensure_compile_time_eval():
        one, two = one.astype(float), two.astype(float)
        return bool((jnp.abs(one - two) <= 1e-2 * jnp.abs(two).max() + 1e-30).all())
