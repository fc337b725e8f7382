"""Blocks where they cannot be folded: states of optimizers, copies, flattened trees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training import train_state
from flax.traverse_util import flatten_dict

import repjax
from repjax.blocks import ResidualConv
from tests.blocks.cases import cast, random_variables

X = np.zeros((1, 6, 7, 4), np.float32)


def block_tree() -> Any:
    return cast(random_variables(ResidualConv(4), X)["params"], np.float32)


class State(NamedTuple):
    moments: Any


class Holder(nnx.Module):
    def __init__(self) -> None:
        self.conv = nnx.Dict({"y=conv3x3": nnx.Dict({"kernel": nnx.Param(jnp.ones((3, 3, 2, 2)))})})


def trained() -> Any:
    params = {"block": block_tree()}
    return train_state.TrainState.create(apply_fn=None, params=params, tx=optax.adam(1e-3))


HIDDEN: dict[str, tuple[Callable[[], Any], str]] = {
    "moments": (
        lambda: {"params": {}, "opt_state": State(block_tree())},
        "opt_state: a State with",
    ),
    "adam": (
        lambda: {"block": block_tree(), "opt": trained().opt_state},
        "a ScaleByAdamState with",
    ),
    "train state": (lambda: {"state": trained()}, "state: a TrainState with blocks inside"),
    "module": (lambda: {"model": Holder()}, "model: a Holder with blocks inside"),
    "too far up": (
        lambda: {"model": {"params": {"a": block_tree()}, "batch_stats": {}}},
        "model: a variables tree of its own; pass it alone",
    ),
    "restored moments": (
        lambda: {"params": {"a": block_tree()}, "opt": [{"mu": {"a": block_tree()}}]},
        r"0/mu/a/y=.*: only in 'opt', not in 'params'; pass parameters and statistics alone",
    ),
    "a second copy": (
        lambda: {"params": {"a": block_tree()}, "ema": {"a": block_tree()}},
        "a/y=.*/.*: in more than one of 'params', 'ema'; pass one copy",
    ),
    "slashes": (lambda: flatten_dict({"params": {"a": block_tree()}}, sep="/"), "a flattened tree"),
    "dots": (lambda: {"params": flatten_dict({"a": block_tree()}, sep=".")}, "a flattened tree"),
    "tuples": (lambda: flatten_dict({"a": block_tree()}), "a flattened tree; pass the nested one"),
    "one block": (lambda: flatten_dict(block_tree(), sep="/"), "a flattened tree"),
    "no dict": (lambda: {"y=conv3x3": [1, 2]}, "y=conv3x3: is a list, expected a dict of arrays"),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_blocks_out_of_reach_are_refused(name: str) -> None:
    make, words = HIDDEN[name]
    tree = make()
    with pytest.raises(repjax.MalformedTreeError, match=words) as caught:
        repjax.fuse_params(tree)
    assert len(str(caught.value)) < 2500
    with pytest.raises(repjax.MalformedTreeError, match=words):
        repjax.unfuse_params(tree, tree)


def test_states_without_blocks_pass_through() -> None:
    params = {"a": block_tree()}
    state = optax.adam(1e-3).init({"head": jnp.ones(2)})
    fused = repjax.fuse_params({"params": params, "opt_state": state, "step": 3})
    assert type(fused["opt_state"][0]) is type(state[0])
    assert fused["opt_state"][0].mu["head"] is state[0].mu["head"]
