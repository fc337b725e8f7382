"""Bad calls: each says what was given, what is expected and what to do, in few words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import pytest
from flax.training import train_state

import repjax
from repjax import models
from repjax.blocks import AveragePool, Depthwise, KxK, RepConv, RepVGGBlock

IMAGE = jax.ShapeDtypeStruct((1, 8, 8, 4), jnp.float32)
PHOTO = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)


def of(block: Any, x: Any = IMAGE) -> Any:
    return jax.eval_shape(block.init, jax.random.key(0), x)


def variables(block: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), of(block))


def network(**fields: Any) -> Any:
    return of(models.create("fastvit_t8", **fields), PHOTO)


def state() -> Any:
    params = {"w": jnp.ones(1)}
    return train_state.TrainState.create(apply_fn=None, params=params, tx=optax.sgd(1.0))


class Bad(NamedTuple):
    """A call, the words that must occur in its message, and the message's longest length."""

    call: Callable[[], Any]
    words: tuple[str, ...]
    length: int = 250


NORMED = RepConv(4)
TABLE = {
    "None": Bad(lambda: repjax.fuse_params(None), ("variables is None", "'params'", "init")),
    "list": Bad(lambda: repjax.fuse_params([]), ("variables is a list", "pass {'params'")),
    "state": Bad(
        lambda: repjax.fuse_params(state()),
        ("variables is a TrainState", "pass {'params': variables.params}"),
    ),
    "module": Bad(lambda: repjax.fuse_params(NORMED), ("a RepConv", "variables that its init")),
    "path": Bad(lambda: repjax.fuse_params("a.npz"), ("variables is a str", "load the file")),
    "optimizer": Bad(
        lambda: repjax.fuse_params(optax.TraceState({})), ("a TraceState", "optimizers")
    ),
    "number": Bad(lambda: repjax.fuse_params(3), ("an int", "pass what model.init returns")),
    "like": Bad(lambda: repjax.unfuse_params({}, None), ("like is None",)),
    "deployed": Bad(lambda: repjax.unfuse_params([], {}), ("deployed is a list",)),
    "only": Bad(
        lambda: repjax.fuse_params({}, only=["stage1"]),
        ("only is a function", "found ['stage1']", "only=paths.__contains__"),
    ),
    "no statistics": Bad(
        lambda: repjax.fuse_params({str(n): variables(NORMED)["params"] for n in range(9)}),
        ("9 blocks have batch norm", "no statistics", "'batch_stats'", "the first is 0/y=norm"),
        350,
    ),
    "a million": Bad(
        lambda: repjax.fuse_params({"y=1000000*conv3x3": {}}),
        ("'y=1000000*conv3x3'", "more than 1000 branches"),
    ),
    "a million in two steps": Bad(
        lambda: repjax.branches.parse("y=1000*(1000*conv3x3)"), ("more than 1000 branches",)
    ),
    "many digits": Bad(
        lambda: repjax.branches.parse(f"y={'9' * 9999}*conv3x3"), ("more than 1000 branches",)
    ),
    "deep": Bad(
        lambda: repjax.branches.parse(f"y={'scale(' * 9999}conv3x3{')' * 9999}"), ("nested more",)
    ),
    "name": Bad(lambda: models.create(None), ("found None", "'repvgg_a0'", "names()")),
    "classes -1": Bad(lambda: models.create("repvgg_a0", num_classes=-1), ("num_classes", "-1")),
    "classes 3": Bad(lambda: models.create("repvgg_a0", num_classes="3"), ("whole", "found '3'")),
    "classes 0": Bad(
        lambda: models.create("repvgg_a0", num_classes=0), ("at least 1", "method='features'")
    ),
    "in_channels": Bad(lambda: models.create("repvgg_a0", in_channels=0), ("in_channels", "0")),
    "direct": Bad(lambda: of(models.RepVGG(num_classes=0), PHOTO), ("num_classes", "found 0")),
    "depths": Bad(
        lambda: network(depths=(1, 2)), ("widths 4, depths 2", "override all of them"), 350
    ),
    "depth": Bad(lambda: network(depths=2), ("depths has one entry per stage", "found 2")),
    "widths": Bad(lambda: network(widths=(8, 8, 8, 0)), ("every entry of widths", "found 0")),
    "cost": Bad(
        lambda: repjax.fuse(NORMED.apply, {}, cost=float("nan")),
        ("cost is nan", "at least 0", "1.0 by default"),
    ),
    "branch": Bad(lambda: of(RepConv(4, KxK(3))), ("one KxK", "write (KxK(...),)")),
    "class": Bad(lambda: of(RepConv(4, (KxK,))), ("the class KxK", "write KxK(...)")),
    "no branch": Bad(lambda: of(RepConv(4, (3,))), ("branches holds 3", "type int", "KxK(3)")),
    "no sequence": Bad(lambda: of(RepConv(4, 3)), ("a sequence such as", "found 3")),
    "features": Bad(lambda: of(RepConv(0)), ("features is a whole number", "found 0")),
    "features 4.0": Bad(lambda: of(RepConv(4.0)), ("whole number", "found 4.0")),
    "features of a block": Bad(lambda: of(RepVGGBlock(0)), ("features", "found 0")),
    "dims": Bad(lambda: of(RepConv(4, dims=0)), ("dims is a whole number", "found 0")),
    "padding": Bad(lambda: of(RepConv(4, padding=1.5)), ("(low, high) pairs", "found 1.5")),
    "strides": Bad(lambda: of(RepConv(4, strides=0)), ("strides", "at least 1; found 0")),
    "strides 1.5": Bad(lambda: of(RepConv(4, strides=1.5)), ("strides", "per axis; found 1.5")),
    "dilation": Bad(lambda: of(RepConv(4, dilation=0)), ("dilation", "at least 1; found 0")),
    "groups": Bad(lambda: of(RepConv(4, groups=3)), ("groups=3", "4 input channels")),
    "output groups": Bad(
        lambda: of(RepConv(6, (KxK(3),), groups=4)), ("groups=4", "6 output channels")
    ),
    "kernel size": Bad(lambda: of(RepConv(4, (KxK("3"),))), ("kernel_size", "found '3'")),
    "window": Bad(lambda: of(RepConv(4, (AveragePool(2.5),))), ("window", "found 2.5")),
    "multiplier": Bad(lambda: of(RepConv(4, (Depthwise(3, 0),))), ("multiplier", "found 0")),
    "epsilon": Bad(lambda: of(RepConv(4, epsilon="tiny")), ("epsilon tiny", "finite number")),
    "crop": Bad(lambda: of(RepConv(4, padding=-6)), ("(-6, -6) leaves -4 of 8 pixels", "pad more")),
    "small image": Bad(
        lambda: of(RepConv(4, (KxK(9),), padding=0)), ("leaves 8 of 8", "reaches over 9")
    ),
    "gate": Bad(lambda: of(RepVGGBlock(4, squeeze_excite=-1)), ("hidden", "found -1")),
    "native on deployed": Bad(
        lambda: NORMED.deploy().apply(variables(NORMED), jnp.ones(IMAGE.shape)),
        ("RepConv: a deployed block got multi-branch", "repjax.fuse_params(variables)"),
    ),
    "deployed on native": Bad(
        lambda: NORMED.apply(variables(NORMED.deploy()), jnp.ones(IMAGE.shape)),
        ("RepConv: a multi-branch block got", "use its deploy twin"),
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_says_what_was_given_what_is_expected_what_to_do(name: str) -> None:
    bad = TABLE[name]
    with pytest.raises((TypeError, ValueError)) as caught:
        bad.call()
    message = str(caught.value).partition("\n--------")[0]  # JAX adds a note on its frames
    for words in bad.words:
        assert words in message
    assert len(message) <= bad.length, message
