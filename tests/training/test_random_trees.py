"""`add_branches` in trees of any shape: what is chosen comes back, everything else is untouched."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import repjax
from repjax import branches as b
from repjax.trees.containers import children
from tests.training.kernels import FLAT, KEY, POOL, SQUARE, alike

TAPS = {1: 5, 2: 3, 3: 2}
Module = dict[str, Any]


@st.composite
def modules(draw: st.DrawFn, dtype: str) -> Module:
    """A convolution of a few shapes, or something that is none."""
    kind, dims = draw(st.sampled_from(["conv", "conv", "dense", "norm"])), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 99)))

    def leaf(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=shape), dtype)

    if kind == "norm":
        return {"scale": leaf(4), "bias": leaf(4)}
    shape = (4, 4) if kind == "dense" else (*(TAPS[dims],) * dims, draw(st.sampled_from([2, 4])), 4)
    return {"kernel": leaf(*shape)} | ({"bias": leaf(4)} if draw(st.booleans()) else {})


def trees(dtype: str) -> st.SearchStrategy[Any]:
    """Modules in dicts, lists and tuples, in each other."""
    names = st.sampled_from(["stem", "stage1", "conv", "0"])
    return st.recursive(
        modules(dtype),
        lambda inside: (
            st.dictionaries(names, inside, min_size=1, max_size=3)
            | st.lists(inside, min_size=1, max_size=2)
            | st.tuples(inside, inside)
        ),
        max_leaves=5,
    ).filter(lambda tree: any(True for _ in convolutions(tree)))


def convolutions(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[str, Module]]:
    below = children(node) or {}
    if getattr(below.get("kernel"), "ndim", 0) > 2:
        yield "/".join(map(str, path)), node
    for key, value in below.items():
        if not str(key).startswith("y="):
            yield from convolutions(value, (*path, key))


def beside(path: str, kernel: Any) -> tuple[b.Branch, ...]:
    """A set that depends on the path, of all that a kernel of that size may have."""
    names = [name for name in POOL if name not in (*FLAT, *SQUARE)]
    place = zlib.crc32(path.encode())
    one, two = names[place % len(names)], names[place // 9 % len(names)]
    size = kernel.shape[:-2]
    return (*POOL[one](size), *POOL[two](size), b.Identity(optional=True))


@settings(max_examples=10)
@given(data=st.data())
def test_the_way_back_leads_to_the_same_tree(data: st.DataObject) -> None:
    dtype, tolerance = data.draw(
        st.sampled_from([("float64", 1e-12), ("float32", 1e-5), ("bfloat16", 0.1)])
    )
    with jax.enable_x64(True):
        tree = data.draw(trees(dtype).filter(lambda tree: isinstance(tree, dict)))
        given_tree = tree
        if data.draw(st.booleans()):
            statistics = {"norm": {"mean": jnp.ones(4)}}
            given_tree = {"params": tree, "batch_stats": statistics}
        if data.draw(st.booleans()):
            given_tree = flax.core.freeze(given_tree)
        chosen = dict(convolutions(tree))

        def groups(path: str, kernel: Any) -> int:
            return 4 // kernel.shape[-2]

        wide = repjax.add_branches(given_tree, beside, KEY, only=chosen.__contains__, groups=groups)
        assert type(wide) is dict
        assert not dict(convolutions(wide))
        found = wide.get("params", wide)
        assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(dtype)}
        assert len(jax.tree.leaves(found)) >= len(jax.tree.leaves(tree)) + 2 * len(chosen)
        back = repjax.fuse_params(wide)
        alike(back, flax.core.unfreeze(given_tree), tolerance)
        kept = {id(leaf) for leaf in jax.tree.leaves(given_tree)}
        same = sum(id(leaf) in kept for leaf in jax.tree.leaves(back))
        assert same == len(kept) - sum(len(module) for module in chosen.values())
