"""Blocks of the user's own: a name and one small function."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import repjax
from repjax.blocks import ResidualConv
from tests.blocks.cases import cast, random_variables

# Registration is for good, so every test has names of its own.


def test_a_registered_block_becomes_its_kernel_and_bias() -> None:
    @repjax.register_block("test_low_rank")
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
    kept = untouched["params"]["head"]["test_low_rank"]
    assert all(kept[name] is arrays[name] for name in ("kernel", "down", "up", "bias"))


def test_beside_blocks_made_of_branches() -> None:
    repjax.register_block("test_beside")(lambda subtree: (subtree["weight"].T, None))
    x = jnp.ones((1, 5, 5, 2))
    variables = cast(random_variables(ResidualConv(2), x), jnp.float32)
    tree = {"block": variables["params"], "head": {"test_beside": {"weight": jnp.ones((3, 2))}}}
    fused = repjax.fuse_params(tree)
    assert set(fused["block"]) == {"kernel", "bias"}
    assert fused["head"]["kernel"].shape == (2, 3)


def test_names_are_taken_once() -> None:
    def fold(subtree: Any) -> Any:
        return subtree["kernel"], None

    repjax.register_block("test_taken", fold)
    with pytest.raises(ValueError, match=r"'test_taken' is known already, folded by .*\.fold"):
        repjax.register_block("test_taken")(lambda subtree: (subtree["kernel"], None))
    with pytest.raises(ValueError, match="begin with 'y=' are equations"):
        repjax.register_block("y=conv3x3", fold)
    with pytest.raises(TypeError, match="name of a block is a string"):
        repjax.register_block(fold)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="unfold of block 'test_no' is a function, found 3"):
        repjax.register_block("test_no", fold, 3)  # type: ignore[call-overload]


def test_the_same_function_again_replaces() -> None:
    """As a cell of a notebook that runs twice, edited in between."""

    def cell(factor: float) -> None:
        @repjax.register_block("test_cell")
        def fold(subtree: Any) -> Any:
            return subtree["kernel"] * factor, None

    tree = {"head": {"test_cell": {"kernel": jnp.ones((2, 2))}}}
    for factor in (2.0, 3.0):
        cell(factor)
        assert float(repjax.fuse_params(tree)["head"]["kernel"][0, 0]) == factor


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (np.ones((2, 3)), r"found an array of shape \(2, 3\)"),
        ("kernel", "found a str"),
        ((np.ones((2, 3)), "bias"), "found a str as bias"),
        ((np.ones((2, 3)), np.ones(2)), r"kernel of shape \(2, 3\) and a bias of shape \(2,\)"),
        ((np.ones((2, 3), np.int8), None), "and type int8 as kernel"),
        ((None, None), "found a NoneType as kernel"),
        ((np.ones(()), None), r"kernel of shape \(\)"),
        ((np.ones(3), np.ones(3), None), "found a tuple"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_fold_gives_kernel_and_bias_or_is_refused(result: Any, words: str) -> None:
    def fold(subtree: Any) -> Any:
        return result

    repjax.register_block("test_results", fold)
    tree = {"head": {"test_results": {"kernel": jnp.ones((2, 3))}}}
    with pytest.raises(ValueError, match=f"^head/test_results: .*{words}"):
        repjax.fuse_params(tree)


def test_the_way_back_of_a_registered_block() -> None:
    def unfold(kernel: Any, bias: Any, subtree: Any) -> Any:
        return {"inner": {"kernel": kernel - subtree["down"] @ subtree["up"], "bias": bias}}

    @repjax.register_block("test_adapter", unfold=unfold)
    def fold(subtree: Any) -> Any:
        inner = subtree["inner"]
        return inner["kernel"] + subtree["down"] @ subtree["up"], inner["bias"]

    inner = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}
    arrays = {"inner": inner, "down": jnp.ones((2, 1)), "up": jnp.ones((1, 3))}
    like = {"head": {"test_adapter": arrays}, "tail": jnp.zeros(1)}
    edited = {
        "head": {"kernel": jnp.full((2, 3), 5.0), "bias": jnp.arange(3.0)},
        "tail": jnp.ones(1),
    }
    back = repjax.unfuse_params(edited, like)
    assert jax.tree.structure(back) == jax.tree.structure(like)
    again = repjax.fuse_params(back)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), again, edited))
    with pytest.raises(repjax.NotFusableError, match=r"head/test_adapter: .*expected \[\(2, 3\)"):
        repjax.unfuse_params({**edited, "head": {"kernel": jnp.ones((2, 4))}}, like)


def test_a_way_back_gives_arrays_of_the_block() -> None:
    def fold(subtree: Any) -> Any:
        return subtree["kernel"], None

    tree = {"head": {"test_back": {"kernel": jnp.ones((2, 3))}}}
    for new, words in (({"weight": jnp.ones(3)}, "weight"), ({"kernel": jnp.ones(3)}, "kernel")):
        repjax.register_block("test_back", fold, lambda kernel, bias, subtree, new=new: new)
        with pytest.raises(
            ValueError, match=rf"head/test_back: its unfold gives {words} of .*\(3,"
        ):
            repjax.unfuse_params(repjax.fuse_params(tree), tree)


def test_refusals_of_registered_blocks_are_listed_by_path() -> None:
    @repjax.register_block("test_refusing")
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
    repjax.register_block("test_leaf")(lambda subtree: (subtree["kernel"], None))
    tree = {"layer": {"test_leaf": jnp.ones(3)}}
    assert repjax.fuse_params(tree)["layer"]["test_leaf"] is tree["layer"]["test_leaf"]
