"""One table of blocks that every member must pass, and random numbers to fill their trees.

Its rows hold every pair of values of two columns, not every combination of all.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from repjax.blocks import (
    AveragePool,
    Identity,
    KxK,
    Negate,
    Norm,
    Pointwise,
    RepConv,
    Scale,
    Sequence,
)

INPUTS = 4
SIZES = {1: [(11,), (10,)], 2: [(11, 10)], 3: [(9, 10, 9)]}


def lines(dims: int) -> tuple[KxK, ...]:
    """Asymmetric kernels: 1x3 and 3x1, and their likes in other dimensions."""
    return tuple(KxK(tuple(3 if i == j else 1 for j in range(dims))) for i in range(dims))


@dataclasses.dataclass(frozen=True)
class BranchSet:
    """Branches by dimension, and how many channels come out; `absorbs` says where unfuse can."""

    of: Callable[[int], tuple[Any, ...]]
    features: int = INPUTS
    strided: bool = True
    absorbs: Callable[[str | None], bool] = lambda norm: True


RESIDUAL = (KxK(3), Pointwise(), Identity(optional=True))
SETS = {
    "residual": BranchSet(lambda d: RESIDUAL),
    "widening": BranchSet(lambda d: RESIDUAL, features=6),
    "copies": BranchSet(lambda d: (*(KxK(3),) * 3, Pointwise()), features=6),
    "asymmetric": BranchSet(lambda d: (KxK(3), *lines(d)), features=6),
    "dilated": BranchSet(lambda d: (KxK(5), KxK(3, dilation=2), KxK(2, dilation=2))),
    "even": BranchSet(lambda d: (KxK(4), KxK(2, tap=1), KxK(3), Pointwise()), features=6),
    "pool": BranchSet(lambda d: (KxK(3), AveragePool(3), AveragePool(2, tap=1))),
    "pointwise_pool": BranchSet(lambda d: (KxK(3), Sequence(Pointwise(), AveragePool(3)))),
    "pointwise_kxk": BranchSet(
        lambda d: (KxK(3), Sequence(Norm(Pointwise()), KxK(3), features=8)), features=6
    ),
    "chain_of_three": BranchSet(
        lambda d: (KxK(5), Sequence(Sequence(Pointwise(bias=True), KxK(3)), AveragePool(3)))
    ),
    "scaled": BranchSet(lambda d: (KxK(3), Scale(Pointwise()), Scale(Identity())), strided=False),
    "difference": BranchSet(lambda d: (KxK(3), Negate(Pointwise()), Negate(AveragePool(3)))),
    "one": BranchSet(lambda d: (KxK((3, 2, 1)[:d]),), features=6),
    "pointwise": BranchSet(lambda d: (Pointwise(), Identity(optional=True))),
    "chain_alone": BranchSet(
        lambda d: (Sequence(Pointwise(bias=True), KxK(3)),), absorbs=lambda norm: False
    ),
    "bias_elsewhere": BranchSet(
        lambda d: (KxK(3, bias=False), Pointwise(bias=True)), absorbs=lambda norm: norm is not None
    ),
}
COLUMNS: dict[str, tuple[Any, ...]] = {
    "branches": tuple(SETS),
    "norm": ("branch", "sum", None),
    "dims": (2, 1, 3),
    "strides": (1, 2),
    "groups": (1, 2),
    "padding": ("kept", "none", "uneven"),
    "dilation": (1, 2),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One row of the table."""

    branches: str
    norm: str | None
    dims: int
    strides: int
    groups: int
    padding: str
    dilation: int

    def __str__(self) -> str:
        words = [self.branches, f"norm {self.norm}", f"{self.dims}d", f"stride {self.strides}"]
        words += [f"groups {self.groups}", f"padding {self.padding}", f"dilation {self.dilation}"]
        return ", ".join(words)

    @property
    def branch_set(self) -> BranchSet:
        return SETS[self.branches]

    @property
    def legal(self) -> bool:
        return self.branch_set.strided or self.strides == 1

    def block(self, **fields: Any) -> RepConv:
        padding = {"kept": None, "none": 0, "uneven": ((2, 1),) * self.dims}[self.padding]
        return RepConv(
            self.branch_set.features,
            branches=self.branch_set.of(self.dims),
            norm=self.norm,
            dims=self.dims,
            strides=self.strides,
            groups=self.groups,
            padding=padding,
            dilation=self.dilation,
            **fields,
        )

    def images(self) -> list[np.ndarray]:
        """Data of odd and of even sizes."""
        rng = np.random.default_rng(1)
        return [coarse(rng.normal(size=(1, *size, INPUTS))) for size in SIZES[self.dims]]

    def variables(self, seed: int = 0) -> Any:
        """Random variables of the block, float64 with values that bfloat16 holds."""
        return random_variables(self.block(), self.images()[0], seed)


def all_pairs() -> list[Case]:
    """Few rows, in which every pair of values of two columns occurs."""
    shuffled = random.Random(0)
    names = list(COLUMNS)
    rows = (Case(*row) for row in itertools.product(*COLUMNS.values()))
    rows = [case for case in rows if case.legal]

    def pairs(case: Case) -> set[Any]:
        cells = [(name, getattr(case, name)) for name in names]
        return set(itertools.combinations(cells, 2))

    missing = set().union(*map(pairs, rows))
    table = []
    while missing:
        best = max(shuffled.sample(rows, 300), key=lambda case: len(pairs(case) & missing))
        if pairs(best) & missing:
            table.append(best)
            missing -= pairs(best)
    return sorted(table, key=lambda case: list(SETS).index(case.branches))


TABLE = all_pairs()


def coarse(values: np.ndarray) -> np.ndarray:
    """Rounded to bfloat16, so that all precisions compute with the same numbers."""
    return values.astype(jnp.bfloat16).astype(np.float64)


def random_leaf(name: Any, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Values of both signs; variances are positive, scales not close to zero."""
    values = rng.normal(size=shape)
    if name == "var":
        values = np.abs(values) + 0.1
    elif name == "scale":
        values = np.sign(values) * (np.abs(values) / 2 + 0.5)
    return coarse(values)


def random_tree(tree: Any, seed: int = 0) -> Any:
    """A tree of the same shapes with random float64 NumPy leaves."""
    rng = np.random.default_rng(seed)

    def fill(path: tuple[Any, ...], leaf: Any) -> np.ndarray:
        return random_leaf(path[-1].key, leaf.shape, rng)

    return jax.tree_util.tree_map_with_path(fill, tree)


def random_variables(module: Any, x: Any, seed: int = 0, **arguments: Any) -> Any:
    """Random float64 variables of a module, without running its initializers."""
    shape = jax.ShapeDtypeStruct(x.shape, jnp.float32)
    return random_tree(jax.eval_shape(module.init, jax.random.key(0), shape, **arguments), seed)


def cast(tree: Any, dtype: Any, stats: Any = None) -> Any:
    """Variables in another type; statistics in `stats` where given, as Flax keeps them."""

    def change(path: tuple[Any, ...], leaf: Any) -> Any:
        of_norm = path[-1].key in ("mean", "var")
        return np.asarray(leaf).astype(stats if of_norm and stats is not None else dtype)

    return jax.tree_util.tree_map_with_path(change, tree)


def described(tree: Any) -> Any:
    """Structure, shapes and types of a tree, comparable."""
    return jax.tree.map(lambda leaf: (leaf.shape, jnp.dtype(leaf.dtype)), tree)


def convolutions(function: Callable[..., Any], *args: Any) -> int:
    """How many convolutions a program contains, calls inlined."""
    return str(jax.make_jaxpr(function)(*args)).count("conv_general_dilated[")


def largest(values: Any) -> float:
    """The largest magnitude."""
    return float(np.abs(np.asarray(values, np.float64)).max())


def identical(one: Any, two: Any) -> bool:
    """Whether two trees have the same leaves, the same objects."""
    return bool(jax.tree.all(jax.tree.map(lambda a, b: a is b, one, two)))


def same(one: Mapping[str, Any], two: Mapping[str, Any], tolerance: float) -> bool:
    """Whether trees agree to a tolerance, relative to the largest value of each leaf."""
    close = jax.tree.map(
        lambda a, b: largest(np.asarray(a, float) - np.asarray(b, float)) <= tolerance * largest(b),
        one,
        two,
    )
    return all(jax.tree.leaves(close))
