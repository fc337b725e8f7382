"""The fold of a block as an affine map of its trained arrays, found by differentiating it."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from repjax import _block_fold as block_fold
from repjax._block_fold import Arrays, BlockFold
from repjax.branches import Norm
from repjax.branches.branch import get
from repjax.trees import find
from repjax.trees.containers import TreePath
from repjax.trees.problems import CheckedBlock, examine_all, raise_all


@dataclasses.dataclass(frozen=True)
class FoldMap:
    """A block's fold, as a function of the arrays that are trained, the others held fixed.

    Attributes:
        at: an array of the block in words, by its path in the block.
        fold: kernel and bias as a function of the arrays.
        trained: zeros like the trained arrays; an affine map has one Jacobian everywhere.
        fixed: the arrays that are held.
    """

    at: Callable[..., str]
    fold: BlockFold
    trained: Arrays
    fixed: Arrays

    @property
    def outputs(self) -> tuple[str, ...]:
        """What it folds to."""
        return self.fold.outputs

    def offset(self) -> dict[str, Any]:
        """What it folds to with nothing trained: the constant of bare identities and masks."""
        offset: dict[str, Any] = block_fold.folded(self.fold, self.trained, self.fixed)
        return offset

    def normal(self, outputs: Any) -> dict[str, Any]:
        """``J Jᵀ`` applied to a gradient."""
        moved: dict[str, Any] = block_fold.normal(self.fold, outputs, self.trained, self.fixed)
        return moved

    def multiplier(self) -> dict[str, Any] | None:
        """``J Jᵀ`` where it is one number per weight, else None."""
        if not self._probed(self.trained).diagonal:
            return None
        return self.normal(jax.tree.map(jnp.ones_like, self.offset()))

    def magnitudes(self) -> dict[str, Any]:
        """For every weight, the sum of the magnitudes of the constants in front of the trained."""
        shares = [
            jax.tree.map(jnp.abs, block_fold.forward(self.fold, self._ones([path]), self.fixed))
            for path in self.trained
        ]
        return functools.reduce(lambda one, two: jax.tree.map(jnp.add, one, two), shares)

    def require_one_to_one(self) -> None:
        """Refuse a block of which some trained array meets several weights, or several meet one.

        Raises:
            ValueError: one does.
        """
        for path in self.trained:
            if not self._probed([path]).one_to_one:
                raise ValueError(
                    f"{self.at(*path)}: one number of it meets several weights of the kernel, "
                    "whose second moments do not tell its own; train this block through "
                    "fuse_params, or with branch_gradient and SGD"
                )

    def require_affine(self) -> None:
        """Refuse a fold that multiplies trained arrays.

        Raises:
            ValueError: it does, with both paths.
        """
        if not self._bends(self.trained, self.trained):
            return
        pairs = itertools.combinations_with_replacement(self.trained, 2)
        paths = next((pair for pair in pairs if self._bends(*([path] for path in pair))), ())
        both = " and ".join(self.at(*path) for path in paths)
        raise ValueError(
            f"{both} are both trained and multiplied, so no constant factor of the gradient moves "
            "the kernel as they do; hold one of them constant (constants=), or train through "
            "repjax.fuse_params"
        )

    def _ones(self, paths: Iterable[TreePath]) -> Arrays:
        """Ones in these trained arrays, zeros in the others."""
        chosen = set(paths)
        return {
            path: jnp.full_like(leaf, float(path in chosen)) for path, leaf in self.trained.items()
        }

    def _bends(self, one: Iterable[TreePath], two: Iterable[TreePath]) -> bool:
        point, fixed = (_random(tree, seed) for seed, tree in enumerate((self.trained, self.fixed)))
        along = [
            {path: leaf if path in paths else np.zeros_like(leaf) for path, leaf in point.items()}
            for paths in (set(one), set(two))
        ]
        with jax.ensure_compile_time_eval():
            return bool(block_fold.bends(self.fold, point, fixed, *along))

    def _probed(self, paths: Iterable[TreePath]) -> block_fold.Probe:
        """What J is like, with constants of size one where they are not zero."""
        held = {
            path: (0.75 + leaf / 2) * _present(self.fixed[path])
            for path, leaf in _random(self.fixed, 0).items()
        }
        chosen = set(paths)
        only = {path: float(path in chosen) for path in self.trained}
        shapes = jax.eval_shape(self.fold, self.trained, self.fixed)
        with jax.ensure_compile_time_eval():
            found = block_fold.probed(
                self.fold, _random(shapes, 1), _random(self.trained, 2), held, only
            )
            return block_fold.Probe(*map(bool, found))


def _random(tree: Mapping[Any, Any], seed: int) -> dict[Any, Any]:
    """Random numbers between -1 and 1, not close to zero."""
    rng = np.random.default_rng(seed)
    drawn = {}
    for path, leaf in tree.items():
        signs = rng.choice([-1.0, 1.0], leaf.shape)
        drawn[path] = np.asarray(signs * rng.uniform(0.2, 1, leaf.shape), leaf.dtype)
    return drawn


def _present(leaf: Any) -> Any:
    """Where an array is not zero; everywhere, where that is not known."""
    return 1 if isinstance(leaf, jax.core.Tracer) else np.asarray(leaf) != 0


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
    damaged: list[str] = []
    blocks, own = examine_all(find.blocks(parts, problems), damaged)
    problems += [
        f"{node.at()}: a registered block, whose trained arrays are not known" for node in own
    ]
    raise_all([*problems, *damaged])
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
    fold = BlockFold(block.branch, block.inputs, block.groups, block.dims)
    one = FoldMap(block.node.at, fold, trained, {path: arrays[path] for path in held})
    one.require_affine()
    return one
