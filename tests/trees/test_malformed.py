"""Trees that do not hold what names promise: one error, all places, inputs untouched."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import repjax
from tests.blocks.cases import cast, identical
from tests.trees.networks import CHAIN, NARROWING, REPVGG, RESIDUAL, at


def node(tree: Any, path: str) -> Any:
    """The parent of what a path of names, joined by spaces, leads to."""
    for name in path.split():
        tree = tree[name]
    return tree


FIRST = f"stage first conv {REPVGG}"
NARROW = f"stage narrowing {NARROWING}"


def missing_branch(tree: Any) -> None:
    del node(tree, f"params {FIRST}")["conv1x1"]
    del node(tree, f"batch_stats {FIRST}")["conv1x1"]


def missing_kernel(tree: Any) -> None:
    del node(tree, f"params residual {RESIDUAL} conv1x1")["kernel"]


def missing_bias(tree: Any) -> None:
    del node(tree, f"params {NARROW} conv3x3_1")["bias"]


def missing_statistics(tree: Any) -> None:
    del node(tree, "batch_stats")["chain"]


def wrong_kernel_size(tree: Any) -> None:
    node(tree, f"params residual {RESIDUAL} conv3x3")["kernel"] = np.ones((3, 2, 6, 6))


def wrong_channels(tree: Any) -> None:
    node(tree, f"params {FIRST} conv1x1")["kernel"] = np.ones((1, 1, 4, 5))


def wrong_inputs(tree: Any) -> None:
    node(tree, f"params residual {RESIDUAL} conv1x1")["kernel"] = np.ones((1, 1, 5, 6))


def wrong_vector(tree: Any) -> None:
    node(tree, f"params {NARROW} norm")["scale"] = np.ones(7)


def wrong_rank(tree: Any) -> None:
    node(tree, f"params {NARROW} norm")["scale"] = np.ones((1, 6))


def stray_leaf(tree: Any) -> None:
    node(tree, f"params chain {CHAIN} conv3x3")["mask"] = np.ones(3)


def stray_branch(tree: Any) -> None:
    node(tree, f"params residual {RESIDUAL}")["conv5x5"] = {"kernel": np.ones((5, 5, 6, 6))}


def int_leaf(tree: Any) -> None:
    kernel = node(tree, f"params {FIRST} conv3x3")
    kernel["kernel"] = kernel["kernel"].astype(np.int8)


def plain_number(tree: Any) -> None:
    node(tree, f"params residual {RESIDUAL} conv1x1")["bias"] = 0.5


def not_finite(tree: Any) -> None:
    norm = node(tree, f"batch_stats {FIRST} identity norm")
    norm["mean"] = np.where(np.arange(4) == 2, np.nan, norm["mean"])


def negative_variance(tree: Any) -> None:
    norm = node(tree, f"batch_stats {FIRST} conv3x3 norm")
    norm["var"] = -norm["var"]


def stacked(tree: Any) -> None:
    for collection in ("params", "batch_stats"):
        part = node(tree, f"{collection} chain")
        part[CHAIN] = jax.tree.map(lambda leaf: np.stack([leaf] * 5), part[CHAIN])


def unknown_equation(tree: Any) -> None:
    part = node(tree, "params residual")
    part["y=conf3x3"] = part.pop(RESIDUAL)


def two_blocks(tree: Any) -> None:
    part = node(tree, "params residual")
    part["y=conv1x1"] = {"kernel": np.ones((1, 1, 6, 6))}


def kernel_beside(tree: Any) -> None:
    node(tree, "params residual")["kernel"] = np.ones(3)


def array_for_a_node(tree: Any) -> None:
    node(tree, "params head")["y=conv1x1"] = np.ones(3)


PROBLEMS: dict[Callable[[Any], None], list[str]] = {
    missing_branch: [
        f"stage/first/conv/{REPVGG}/conv1x1/kernel: missing; the block's name promises it, "
        "shape (1, 1, in/groups, out)",
        f"stage/first/conv/{REPVGG}/conv1x1/norm/var: missing",
    ],
    missing_kernel: [f"residual/{RESIDUAL}/conv1x1/kernel: missing"],
    missing_bias: [f"stage/narrowing/{NARROWING}/conv3x3_1/bias: missing"],
    missing_statistics: [
        f"chain/{CHAIN}/conv3x3/norm/mean: missing",
        f"chain/{CHAIN}/conv1x1_conv3x3/conv1x1/norm/mean: missing",
        f"chain/{CHAIN}/conv1x1_conv3x3/norm/mean: missing",
    ],
    wrong_kernel_size: [
        f"residual/{RESIDUAL}/conv3x3/kernel: has shape (3, 2, 6, 6), expected shape "
        "(3, 3, in/groups, out)"
    ],
    wrong_channels: [
        f"stage/first/conv/{REPVGG}/conv1x1: has 5 output channels, expected 4",
        f"stage/first/conv/{REPVGG}/conv1x1/norm/scale: has shape (4,), expected (5,)",
    ],
    wrong_inputs: [f"residual/{RESIDUAL}/conv1x1/kernel: maps 5 x 1 groups to 6 channels"],
    wrong_vector: [f"stage/narrowing/{NARROWING}/norm/scale: has shape (7,), expected (6,)"],
    wrong_rank: [f"stage/narrowing/{NARROWING}/norm/scale: has shape (1, 6), expected shape"],
    stray_leaf: [f"chain/{CHAIN}/conv3x3/mask: not part of the block"],
    stray_branch: [f"residual/{RESIDUAL}/conv5x5/kernel: not part of the block"],
    int_leaf: [f"stage/first/conv/{REPVGG}/conv3x3/kernel: has dtype int8, expected a floating"],
    plain_number: [f"residual/{RESIDUAL}/conv1x1/bias: is a float, expected an array"],
    not_finite: [f"stage/first/conv/{REPVGG}/identity/norm/mean: holds values that are not finite"],
    negative_variance: [f"stage/first/conv/{REPVGG}/conv3x3/norm/var: holds negative variances"],
    stacked: [f"chain/{CHAIN}: every array has a leading axis [5]"],
    unknown_equation: ["residual/y=conf3x3: 'y=conf3x3': expected a branch at character 2"],
    two_blocks: [
        f"residual/{RESIDUAL}: a second block beside it",
        "residual/y=conv1x1: a second block beside it",
    ],
    kernel_beside: [f"residual/{RESIDUAL}: its module has kernel of its own"],
    array_for_a_node: ["head/y=conv1x1/kernel: missing"],
}


@pytest.mark.parametrize("damage", PROBLEMS, ids=lambda damage: damage.__name__)
def test_named_with_path_found_and_expected(damage: Callable[[Any], None], exact: Any) -> None:
    tree = copy.deepcopy(exact)
    damage(tree)
    before = jax.tree.map(id, tree)
    with pytest.raises(repjax.MalformedTreeError) as caught:
        repjax.fuse_params(tree)
    for problem in PROBLEMS[damage]:
        assert f"\n  {problem}" in str(caught.value)
    assert jax.tree.map(id, tree) == before
    # As `like` of the way back, too, and only what is wrong is reported.
    deployed = repjax.fuse_params(exact)
    with pytest.raises(repjax.MalformedTreeError) as caught:
        repjax.unfuse_params(deployed, tree)
    if damage not in (two_blocks, kernel_beside, array_for_a_node):
        for problem in PROBLEMS[damage]:
            assert f"\n  {problem}" in str(caught.value)
        assert "deploy tree" not in str(caught.value)


def test_all_problems_of_all_blocks_in_one_error(exact: Any) -> None:
    tree = copy.deepcopy(exact)
    damages = [missing_branch, wrong_vector, stray_leaf, missing_kernel, missing_statistics]
    for damage in damages:
        damage(tree)
    with pytest.raises(repjax.MalformedTreeError) as caught:
        repjax.fuse_params(tree)
    message = str(caught.value)
    assert all(problem in message for damage in damages for problem in PROBLEMS[damage])
    count = message.count("\n")
    assert message.startswith(f"{count} problems in the tree:\n")
    assert count == 5 + 1 + 1 + 1 + 6
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("damage", [not_finite, negative_variance], ids=lambda d: d.__name__)
def test_values_are_not_known_under_jit(damage: Callable[[Any], None], exact: Any) -> None:
    tree = copy.deepcopy(exact)
    damage(tree)
    with pytest.raises(repjax.MalformedTreeError):
        repjax.fuse_params(cast(tree, jnp.bfloat16))
    kernel = at(jax.eval_shape(repjax.fuse_params, tree)["params"], "stage/first/conv")["kernel"]
    assert kernel.shape == (3, 3, 4, 4)


def test_structure_is_known_under_jit(exact: Any) -> None:
    tree = copy.deepcopy(exact)
    missing_kernel(tree)
    with pytest.raises(repjax.MalformedTreeError, match="conv1x1/kernel: missing"):
        jax.jit(repjax.fuse_params)(tree)


def test_problems_outside_the_chosen_blocks_do_not_matter(exact: Any) -> None:
    tree = copy.deepcopy(exact)
    missing_kernel(tree)
    fused = repjax.fuse_params(tree, only=lambda path: path != "residual")
    assert identical(fused["params"]["residual"], tree["params"]["residual"])
