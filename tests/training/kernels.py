"""Kernels of all shapes side by side, each with a random set of branches, as one network."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import repjax
from repjax import branches as b

KEY = jax.random.key(5)
UNIFORM = jax.nn.initializers.uniform(0.5)
Sizes = tuple[int, ...]


def one(bias: bool = False) -> b.Branch:
    return b.Pointwise(bias=bias, kernel_init=UNIFORM)


def conv(size: Any, **fields: Any) -> b.KxK:
    return b.KxK(size, kernel_init=UNIFORM, **fields)


def deep(size: Sizes) -> b.Branch:
    return b.Sequence(one(), conv(size), features=8)


# every kind of branch without a norm of its own, for kernels of that size
POOL: dict[str, Callable[[Sizes], tuple[b.Branch, ...]]] = {
    "residual": lambda size: (one(), b.Identity(optional=True)),
    "copies": lambda size: (conv(size), conv(size), conv(1)),
    "asymmetric": lambda size: (conv((size[0], *(1,) * (len(size) - 1))),),
    "dilated": lambda size: (conv(tuple(3 if n > 4 else 1 for n in size), dilation=2),),
    "even": lambda size: (conv(tuple(2 if n > 2 else 1 for n in size)),),
    "chain": lambda size: (deep(size),),
    "scaled": lambda size: (b.Scale(one()), b.Negate(b.Scale(conv(size), scale_init=UNIFORM))),
    "pooled": lambda size: (b.Sequence(one(), b.AveragePool(size)),),
    "separable": lambda size: (b.Sequence(b.Depthwise(size, 4, kernel_init=UNIFORM), one()),),
    "trained scale": lambda size: (b.Scale(b.Identity()),),
    "orepa": lambda size: (b.orepa(3, kernel_init=UNIFORM),),
    "edges": lambda size: (b.Scale(b.Sequence(one(), b.Fixed("sobelx"))),),
}
FLAT = ("orepa", "edges")  # for two axes, of three taps or more
SQUARE = ("residual", "trained scale")  # the input itself: as many channels, strides of one


def constants(path: str) -> bool:
    """What must be held that no two trained arrays are multiplied: scales, firsts of chains."""
    first = re.search(r"/(\w+)_conv\w*/\1(/\w+)?/kernel$", path)
    return bool(first) or (path.endswith("scale") and "/identity/" not in path)


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A kernel and what stands beside it."""

    size: Sizes
    inputs: int
    features: int
    groups: int
    strides: int
    bias: bool
    added: tuple[b.Branch, ...]

    def plain(self) -> nn.Conv:
        return nn.Conv(
            self.features,
            self.size,
            self.strides,
            padding=[((n - 1) // 2, n // 2) for n in self.size],
            feature_group_count=self.groups,
            use_bias=self.bias,
            param_dtype=float,
        )

    def native(self) -> repjax.blocks.RepConv:
        return repjax.blocks.RepConv(
            self.features,
            (b.KxK(self.size, bias=self.bias), *self.added),
            dims=len(self.size),
            strides=self.strides,
            groups=self.groups,
            norm=None,
            use_bias=False,
        )


def drawn(dims: int, seed: int = 0) -> dict[str, Kernel]:
    """Kernels with two or three of the sets each, all of them among them; by their sets."""
    rng = np.random.default_rng(seed + dims)
    names = [name for name in POOL if dims == 2 or name not in FLAT]
    rng.shuffle(names)
    kernels = {}
    while names:
        chosen, names = names[:3], names[3:]
        square = any(name in chosen for name in SQUARE)
        groups = int(rng.choice([1, 2, 4]))
        smallest = 3 if any(name in chosen for name in FLAT) else 1
        size = tuple(int(n) for n in rng.integers(smallest, {1: 8, 2: 6, 3: 4}[dims], dims))
        kernels["+".join(chosen)] = Kernel(
            size=size,
            inputs=4,
            features=4 if square else int(rng.choice([4, 8])),
            groups=groups,
            strides=1 if square else int(rng.integers(1, 3)),
            bias=bool(rng.integers(2)),
            added=tuple(branch for name in chosen for branch in POOL[name](size)),
        )
    return kernels


def variables(kernels: dict[str, Kernel], seed: int = 0) -> Any:
    """Random float64 parameters of the plain network."""
    rng = np.random.default_rng(seed)
    params = {}
    for name, kernel in kernels.items():
        shape = (*kernel.size, kernel.inputs // kernel.groups, kernel.features)
        limit = math.prod(shape[:-1]) ** -0.5
        params[name] = {"kernel": jnp.asarray(rng.normal(size=shape) * limit)}
        if kernel.bias:
            params[name]["bias"] = jnp.asarray(rng.normal(size=kernel.features))
    return {"params": params}


def widened(kernels: dict[str, Kernel], plain: Any) -> Any:
    """The network with its branches."""
    return repjax.add_branches(
        plain,
        lambda path, _: kernels[path].added,
        KEY,
        only=kernels.__contains__,
        groups=lambda path, _: kernels[path].groups,
    )


def images(kernels: dict[str, Kernel], seed: int = 1) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    return {
        name: jnp.asarray(rng.normal(size=(2, *(7, 6, 5)[: len(kernel.size)], kernel.inputs)))
        for name, kernel in kernels.items()
    }


def run_plain(kernels: dict[str, Kernel], tree: Any, x: Any) -> dict[str, jax.Array]:
    return {
        name: kernel.plain().apply({"params": tree["params"][name]}, x[name])
        for name, kernel in kernels.items()
    }


def run_native(kernels: dict[str, Kernel], tree: Any, x: Any) -> dict[str, jax.Array]:
    """Every branch by itself, as its block runs it."""
    return {
        name: kernel.native().apply(
            {collection: part[name] for collection, part in tree.items() if name in part}, x[name]
        )
        for name, kernel in kernels.items()
    }


def close(one: Any, two: Any, tolerance: float, least: float = 1e-300) -> None:
    """Leaf by leaf, relative to the largest entry, or to `least`."""
    assert jax.tree.structure(one) == jax.tree.structure(two)
    pairs = zip(jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(two), strict=True)
    for (path, a), c in pairs:
        assert a.dtype == c.dtype
        a, c = np.asarray(a, np.float64), np.asarray(c, np.float64)
        moved = np.abs(a - c).max() / max(least, np.abs(c).max())
        assert moved <= tolerance, jax.tree_util.keystr(path)


def alike(one: Any, two: Any, tolerance: float = 1e-12) -> None:
    """As `close`, where numbers below one are compared as they are."""
    close(one, two, tolerance, least=1.0)
