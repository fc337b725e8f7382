"""The RepVGG block: 3x3 + 1x1 + identity, batch norm on each, then an activation."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import repjax
from repjax.blocks import RepVGGBlock
from tests.blocks.cases import described, largest, random_variables
from tests.evaluate import evaluated


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({}, "y=norm(conv3x3)+norm(conv1x1)+norm(identity)"),
        ({"strides": 2}, "y=norm(conv3x3)+norm(conv1x1)"),
        ({"features": 8, "groups": 2}, "y=norm(conv3x3)+norm(conv1x1)"),
        ({"kernel_size": (5, 3), "dilation": 2, "activation": nn.gelu, "epsilon": 1e-3}, None),
        ({"activation": None, "padding": 0}, None),
    ],
    ids=["default", "strides", "groups", "every field", "bare"],
)
def test_native_equals_deployed(fields: Any, name: str | None) -> None:
    block = RepVGGBlock(**{"features": 4, **fields})
    x = np.random.default_rng(0).normal(size=(2, 13, 12, 4))
    variables = random_variables(block, x)
    [found] = variables["params"]["conv"]
    assert name in (None, found)
    promised = jax.eval_shape(block.deploy().init, jax.random.key(0), jnp.asarray(x, jnp.float32))

    @evaluated
    def run(variables: Any, x: Any) -> Any:
        fused = repjax.fuse_params(variables)
        return fused, block.apply(variables, x), block.deploy().apply(fused, x)

    fused, native, deployed = run(variables, x)
    assert jax.tree.map(jnp.shape, fused) == jax.tree.map(lambda leaf: leaf.shape, promised)
    assert largest(native - deployed) <= 1e-12 * largest(native)
    if block.activation is nn.relu:
        assert float(native.min()) == 0


def test_training_by_hand_and_its_running_statistics() -> None:
    x = np.random.default_rng(0).normal(size=(4, 5, 5, 3)).astype(np.float32)
    block = RepVGGBlock(3, activation=None, momentum=0.9)
    init = evaluated(lambda x: block.init(jax.random.key(0), x))
    variables = init(x)
    run = evaluated(lambda v, x: block.apply(v, x, train=True, mutable=["batch_stats"]))
    y, updated = run(variables, x)
    [stats] = updated["batch_stats"]["conv"].values()
    assert largest(stats["identity"]["norm"]["mean"] - 0.1 * x.mean((0, 1, 2))) < 1e-6
    wanted = 0.9 + 0.1 * x.var((0, 1, 2))
    assert largest(stats["identity"]["norm"]["var"] - wanted) < 1e-6
    assert largest(y.mean((0, 1, 2))) < 1e-5  # three normalized branches, biases of zero
    assert described(updated["batch_stats"]) == described(variables["batch_stats"])
