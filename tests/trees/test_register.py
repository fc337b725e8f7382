"""Blocks of the user's own: a name and one small function."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

import repjax
from repjax.blocks import ResidualConv
from tests.blocks.cases import cast, random_variables

# Registration is for good, so every test has names of its own.


def test_a_registered_block_becomes_its_kernel_and_bias() -> None:
    @repjax.register("test_low_rank")
    def fold(subtree: Any) -> Any:
        scale = subtree["norm"]["scale"] / subtree["norm"]["deviation"]
        return (subtree["kernel"] + subtree["down"] @ subtree["up"]) * scale, subtree["bias"]

    arrays = {
        "kernel": jnp.ones((2, 3)),
        "down": jnp.ones((2, 1)),
        "up": jnp.full((1, 3), 2.0),
        "bias": jnp.arange(3.0),
        "norm": {"scale": jnp.full(3, 4.0)},
    }
    stats = {"norm": {"deviation": jnp.full(3, 2.0)}}
    beside = jnp.zeros(7)
    variables = {
        "params": {"head": {"test_low_rank": arrays, "beside": beside}},
        "batch_stats": {"head": {"test_low_rank": stats}},
    }
    for fuse in (repjax.fuse_params, jax.jit(repjax.fuse_params)):
        fused = fuse(variables)
        assert set(fused) == {"params"}
        assert set(fused["params"]["head"]) == {"kernel", "bias", "beside"}
        assert fused["params"]["head"]["kernel"].tolist() == [[6, 6, 6], [6, 6, 6]]
        assert fused["params"]["head"]["bias"].tolist() == [0, 1, 2]
    assert repjax.fuse_params(variables)["params"]["head"]["beside"] is beside
    untouched = repjax.fuse_params(variables, only=lambda path: path != "head")
    assert untouched["params"] is variables["params"]


def test_beside_blocks_made_of_branches() -> None:
    repjax.register("test_beside")(lambda subtree: (subtree["weight"].T, None))
    x = jnp.ones((1, 5, 5, 2))
    variables = cast(random_variables(ResidualConv(2), x), jnp.float32)
    tree = {"block": variables["params"], "head": {"test_beside": {"weight": jnp.ones((3, 2))}}}
    fused = repjax.fuse_params(tree)
    assert set(fused["block"]) == {"kernel", "bias"}
    assert fused["head"]["kernel"].shape == (2, 3)


def test_names_are_taken_once() -> None:
    repjax.register("test_taken")(lambda subtree: (subtree["kernel"], None))
    for name in ("test_taken", "y=conv3x3"):
        with pytest.raises(ValueError, match=f"'{name}' is known already"):
            repjax.register(name)(lambda subtree: (subtree["kernel"], None))


def test_refusals_of_registered_blocks_are_listed_by_path() -> None:
    @repjax.register("test_refusing")
    def fold(subtree: Any) -> Any:
        raise repjax.NotFusableError("its border is not zero")

    tree = {name: {"test_refusing": {"kernel": jnp.ones((2, 2))}} for name in ("one", "two")}
    with pytest.raises(repjax.NotFusableError) as caught:
        repjax.fuse_params(tree)
    assert str(caught.value).split("\n") == [
        "cannot fuse:",
        "  one/test_refusing: its border is not zero",
        "  two/test_refusing: its border is not zero",
    ]


def test_a_leaf_of_that_name_is_no_block() -> None:
    repjax.register("test_leaf")(lambda subtree: (subtree["kernel"], None))
    tree = {"layer": {"test_leaf": jnp.ones(3)}}
    assert repjax.fuse_params(tree) is tree
