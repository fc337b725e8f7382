"""`unfuse_params`: the way back of a deploy tree that was edited after fusion."""

from __future__ import annotations

import copy
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import repjax
from repjax.blocks import Identity, KxK, Negate, Norm, Pointwise, RepConv, Scale, Sequence
from tests.blocks.cases import (
    cast,
    described,
    largest,
    random_tree,
    random_variables,
    same,
)
from tests.evaluate import evaluated
from tests.trees.networks import IMAGES, PATHS, Network, at, paths_of

X = np.random.default_rng(0).normal(size=(2, 6, 7, 4))


def edited_tree(variables: Any) -> Any:
    """The deploy tree with every leaf changed at random."""
    return random_tree(jax.eval_shape(repjax.fuse_params, variables), seed=11)


@pytest.mark.usefixtures("x64")
def test_the_network_computes_the_edited_function(exact: Any) -> None:
    edited = edited_tree(exact)

    @evaluated
    def run(edited: Any, like: Any, x: Any) -> Any:
        unfused = repjax.unfuse_params(edited, like)
        native = Network().apply(unfused, x)
        return unfused, repjax.fuse_params(unfused), native, Network().deploy().apply(edited, x)

    unfused, again, native, deployed = run(edited, exact, IMAGES)
    assert largest(native - deployed) <= 1e-12 * largest(deployed)
    assert largest(native - Network().deploy().apply(repjax.fuse_params(exact), IMAGES)) > 1e-3
    assert described(unfused) == described(exact)
    assert same(again, edited, 1e-11)


def test_only_one_branch_of_each_block_changes(exact: Any) -> None:
    like = cast(exact, np.float32)
    edited = cast(edited_tree(exact), np.float32)
    unfused = repjax.unfuse_params(edited, like)
    before, after = (jax.tree.leaves_with_path(tree) for tree in (like, unfused))
    changed = {
        "/".join(key.key for key in path)
        for (path, old), (_, new) in zip(before, after, strict=True)
        if old is not new
    }
    inside = {path for path in changed if "y=" in path}
    nodes = {name: f"params/{path}/{name}" for path, name in PATHS.items()}
    assert inside == {
        f"{node}/{leaf}"
        for name, node in nodes.items()
        for leaf in {
            "y=norm[epsilon=1e-3](2*conv3x3[bias]+conv1x1[bias])": {
                "conv3x3_0/kernel",
                "norm/bias",
            },
            "y=conv3x3[bias]+conv1x1[bias]+identity": {"conv3x3/kernel", "conv3x3/bias"},
        }.get(name, {"conv3x3/kernel", "conv3x3/norm/bias"})
    }
    # Outside of blocks, everything is that of the deploy tree, the same objects.
    for name in ("stem", "stem_norm", "head"):
        assert all(
            a is b
            for a, b in zip(
                jax.tree.leaves(unfused["params"][name]),
                jax.tree.leaves(edited["params"][name]),
                strict=True,
            )
        )
    assert unfused["batch_stats"]["stem_norm"]["mean"] is edited["batch_stats"]["stem_norm"]["mean"]


def test_what_was_left_unfused_is_taken_as_it_is(variables: Any) -> None:
    partly = repjax.fuse_params(variables, only=lambda path: path == "chain")
    edited = jax.tree.map(lambda leaf: leaf * 1.5, partly)
    unfused = repjax.unfuse_params(edited, variables)
    assert described(unfused) == described(variables)
    assert same(unfused["params"]["residual"], edited["params"]["residual"], 0)
    again = repjax.fuse_params(unfused)["params"]["chain"]
    assert same(again, edited["params"]["chain"], 1e-4)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_the_types_of_like_are_kept(variables: Any, dtype: Any, strict: None) -> None:
    like = {**variables, "params": jax.tree.map(lambda a: a.astype(dtype), variables["params"])}
    deployed = repjax.fuse_params(variables)
    unfused = repjax.unfuse_params(deployed, like)
    block = at(unfused["params"], "stage/first/conv")
    assert described(block) == described(at(like["params"], "stage/first/conv"))
    # and float64 NumPy leaves are as good as any
    wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), deployed)
    again = repjax.fuse_params(repjax.unfuse_params(wide, variables))["params"]["chain"]
    assert same(again, deployed["params"]["chain"], 1e-4)


WAYS = {
    "norm without bias": (Norm(KxK(3, bias=True), bias=False), Pointwise(bias=True)),
    "norm without scale": (Norm(KxK(3), scale=False), Norm(Pointwise())),
    "scale of a norm": (Scale(Norm(KxK(3))), Identity()),
    "scale with bias": (Scale(KxK(3, bias=False), bias=True), Pointwise(bias=True)),
    "minus": (Negate(KxK(3, bias=True)), Negate(Norm(Identity()))),
    "norm of a sum": (Norm(repjax.branches.Sum((KxK(3, bias=False), Pointwise(bias=True)))),),
    "second best": (KxK(3, bias=False), KxK(3, bias=True)),
    "larger one": (KxK(3, bias=True), KxK(5, bias=True), KxK((1, 3))),
    "norm in front": (Sequence(Norm(Identity()), Pointwise(bias=False)),),
    "norm in front of a bias": (Sequence(Norm(Identity()), KxK(3, bias=True)),),
    "norms around": (Norm(Sequence(Norm(Identity()), Pointwise(bias=False))), Pointwise()),
    "scale in front": (Scale(Sequence(Scale(Identity(), bias=True), KxK(3)), bias=True),),
    "no bias at all": (KxK(3, bias=False), Pointwise(bias=False), Identity()),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", WAYS)
def test_where_kernel_and_bias_find_a_place(name: str) -> None:
    block = RepConv(4, WAYS[name], norm=None, use_bias=False)
    like = random_variables(block, X)
    edited = edited_tree(like)
    run = evaluated(lambda edited, like: repjax.fuse_params(repjax.unfuse_params(edited, like)))
    again = run(edited, like)
    assert same(again, edited, 1e-11)


@pytest.mark.usefixtures("x64")
def test_a_norm_in_front_takes_the_bias_if_any_shift_comes_out_as_it() -> None:
    """8 outputs of 4 inputs in 2 groups: 8 biases, 4 shifts."""
    branches = (Sequence(Norm(Identity()), Pointwise(bias=False)),)
    block = RepConv(8, branches, norm=None, groups=2)
    trained, like = (random_variables(block, X, seed) for seed in (0, 1))
    deployed = repjax.fuse_params(trained)
    back = repjax.unfuse_params(deployed, like)
    assert same(repjax.fuse_params(back), deployed, 1e-11)
    deployed["params"]["bias"] = deployed["params"]["bias"].at[0].add(1e-9)
    with pytest.raises(repjax.NotFusableError, match=r"y=conv1x1\(.*: .* no shift in front of it"):
        repjax.unfuse_params(deployed, like)
    unknown = jax.jit(repjax.unfuse_params)(deployed, like)["params"]
    assert np.isnan(unknown["y=conv1x1(norm(identity))"]["identity"]["norm"]["bias"]).all()


@pytest.mark.parametrize(
    ("branches", "words"),
    [
        ((KxK((1, 3)), KxK((3, 1))), "no branch has 3x3 taps and a place for the bias"),
        ((KxK(3, bias=False), Pointwise(bias=True)), "no branch has 3x3 taps and a place"),
        ((Sequence(Pointwise(), KxK(3)), Pointwise()), "no branch has 3x3 taps"),
        ((KxK(3, dilation=2), KxK(3)), "no branch has 5x5 taps"),
        ((KxK(3, tap=0), Identity(), KxK(2, tap=1)), "no branch has 4x4 taps"),
    ],
    ids=["lines", "no bias", "chain", "dilated", "off center"],
)
def test_refused_where_no_branch_can(branches: Any, words: str) -> None:
    block = RepConv(4, branches, norm=None)
    like = {"params": {"one": random_variables(block, X)["params"]}}
    like["params"]["two"] = like["params"]["one"]
    with pytest.raises(repjax.NotFusableError, match=words) as caught:
        repjax.unfuse_params(edited_tree(like), like)
    lines = str(caught.value).split("\n")
    assert lines[0] == "cannot unfuse:"
    assert [line.split("/y=")[0] for line in lines[1:]] == ["  one", "  two"]


@pytest.mark.parametrize("around", [Norm, Scale])
def test_a_scale_of_zero_is_refused_by_channel(around: Any) -> None:
    block = RepConv(4, (around(KxK(3)),), norm=None)
    like = cast(random_variables(block, X), np.float32)
    [node] = like["params"].values()
    scale = node["norm"] if around is Norm else node
    scale["scale"] = np.array([1, 0, 2, 0], np.float32)
    words = r"y=\w+\(.*: the scale of \w+\(conv3x3.*\) is zero on channels \[1, 3\]"
    with pytest.raises(repjax.NotFusableError, match=words):
        repjax.unfuse_params(edited_tree(like), like)


def test_a_registered_block_without_a_way_back_is_refused() -> None:
    name = "test_unfuse_registered"
    repjax.register_block(name)(lambda subtree: (subtree["weight"], None))
    like = {"head": {name: {"weight": jnp.ones((2, 2))}}}
    words = f"cannot unfuse:\n  head/{name}: '{name}' was registered without a way back"
    with pytest.raises(repjax.NotFusableError, match=words):
        repjax.unfuse_params(repjax.fuse_params(like), like)


def test_trees_of_other_networks_are_refused_with_all_paths(variables: Any) -> None:
    deployed = repjax.fuse_params(variables)
    other = jax.tree.map(lambda leaf: leaf, deployed)
    params = other["params"]
    del params["head"]["bias"]
    params["head"]["kernel"] = jnp.ones((5, 3))
    params["tail"] = {"kernel": jnp.ones(1)}
    del params["chain"]["bias"]
    params["residual"]["kernel"] = jnp.ones((3, 3, 6, 5))
    params["residual"]["bias"] = jnp.ones(5)
    del params["stage"]["first"]["conv"]
    del other["batch_stats"]["stem_norm"]["mean"]
    before = jax.tree.map(id, other)
    with pytest.raises(repjax.MalformedTreeError) as caught:
        repjax.unfuse_params(other, variables)
    wanted = [
        "params/head/bias: missing in the deploy tree",
        "params/head/kernel: has shape (5, 3), expected (6, 3)",
        "params/tail/kernel: only in the deploy tree",
        "chain/bias: missing in the deploy tree",
        "residual/kernel: has shape (3, 3, 6, 5), expected (3, 3, 6, 6)",
        "residual/bias: has shape (5,), expected (6,)",
        "stage/first/conv: missing in the deploy tree",
        "batch_stats/stem_norm/mean: missing in the deploy tree",
    ]
    message = str(caught.value)
    assert message.startswith(f"{len(wanted)} problems in the tree:\n")
    assert sorted(message.split("\n  ")[1:]) == sorted(wanted)
    assert jax.tree.map(id, other) == before


def test_a_bare_tree_goes_with_a_bare_tree() -> None:
    block = RepConv(4, (KxK(3), Pointwise()), norm=None)
    like = cast(random_variables(block, X)["params"], np.float32)
    edited = jax.tree.map(lambda leaf: leaf * 2, repjax.fuse_params(like))
    unfused = repjax.unfuse_params(edited, like)
    assert paths_of(unfused) == paths_of(like)
    assert same(repjax.fuse_params(unfused), edited, 1e-5)
    with pytest.raises(repjax.MalformedTreeError, match="the other is bare"):
        repjax.unfuse_params({"params": edited}, like)


def test_inputs_are_not_changed(exact: Any) -> None:
    like, edited = copy.deepcopy(exact), cast(edited_tree(exact), np.float32)
    before = jax.tree.map(np.copy, like), jax.tree.map(np.copy, edited)
    repjax.unfuse_params(edited, like)
    for tree, copied in zip((like, edited), before, strict=True):
        assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), tree, copied))
