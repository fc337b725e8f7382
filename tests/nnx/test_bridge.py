"""Linen blocks and networks through `nnx.bridge.ToNNX`: they run, train and fuse."""

from __future__ import annotations

import inspect
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import repjax.nnx
from repjax import blocks, models
from tests.blocks.cases import largest

BLOCKS: dict[str, Any] = {
    name: kind
    for name, kind in vars(blocks).items()
    if name in blocks.__all__ and issubclass(kind, nn.Module)
}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "AttentionBlock": {"head_features": 4},
    "GhostBottleneckV3": {"hidden": 8, "features": 8},
    "RepGhostBottleneck": {"hidden": 8, "features": 8},
    "SqueezeExcite": {"hidden": 2},
}
X = np.random.default_rng(0).normal(size=(2, 16, 16, 8)).astype(np.float32)
FIRST = {type(models.create(name)): name for name in reversed(models.names())}


def module_of(name: str) -> Any:
    kind, arguments = BLOCKS[name], ARGUMENTS.get(name)
    if arguments is None:
        arguments = {"features": 8} if "features" in kind.__dataclass_fields__ else {}
    return kind(**arguments)


def names_below(variables: Any) -> set[str]:
    return {str(name) for tree in variables.values() for name in tree}


def run(model: nnx.Module, x: Any, **fields: Any) -> Any:
    """Outputs and the updated module, abstract."""
    return nnx.eval_shape(lambda model: (model(x, **fields), model), model)


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_runs_trains_and_fuses(name: str) -> None:
    linen = module_of(name)
    variables = jax.eval_shape(linen.init, jax.random.key(0), X)
    assert not names_below(variables) & {*dir(type(linen)), *dir(nnx.Module)}
    model = nnx.eval_shape(lambda: nnx.bridge.ToNNX(linen, rngs=nnx.Rngs(0)).lazy_init(X))
    y, _ = run(model, X)
    assert run(repjax.nnx.deploy(model), X)[0].shape == y.shape
    if "train" not in inspect.signature(type(linen).__call__).parameters:
        return
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def loss(params: Any, rest: Any) -> Any:
        inside = nnx.merge(graph, params, rest, copy=True)
        y = inside(X, train=True, mutable=["batch_stats"])
        return (y**2).sum(), nnx.state(inside, nnx.BatchStat)

    grads, statistics = jax.eval_shape(jax.grad(loss, has_aux=True), params, rest)
    assert jax.tree.structure(grads) == jax.tree.structure(params)
    assert len(jax.tree.leaves(statistics)) == len(jax.tree.leaves(variables.get("batch_stats")))


@pytest.mark.parametrize("name", ["RepVGGBlock", "ECB", "RepMixer"])
def test_fused_through_the_bridge_computes_the_same(name: str) -> None:
    model = nnx.bridge.ToNNX(module_of(name), rngs=nnx.Rngs(0)).lazy_init(X)
    y, before = model(X), nnx.state(model, nnx.BatchStat)
    assert largest(repjax.nnx.deploy(model)(X) - y) <= 1e-5 * largest(y)
    model(X, train=True, mutable=["batch_stats"])
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), before, nnx.state(model, nnx.BatchStat))
    assert all(jax.tree.leaves(moved))


QUICK = ("repvgg_a0", "lcnetv2_small")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in FIRST.values()],
)
def test_a_network_of_each_family(name: str) -> None:
    linen = models.create(name, num_classes=10)
    x = jnp.zeros((1, 64, 64, linen.in_channels))
    variables = jax.eval_shape(linen.init, jax.random.key(0), x)
    assert not names_below(variables) & {*dir(type(linen)), *dir(nnx.Module)}
    abstract = nnx.eval_shape(lambda: nnx.bridge.ToNNX(linen, rngs=nnx.Rngs(0)).lazy_init(x))
    deployed = repjax.nnx.deploy(abstract)

    y, _ = run(abstract, x)
    assert run(deployed, x)[0].shape == y.shape
    mutable = ["batch_stats"]
    trained, updated = run(abstract, x, train=True, mutable=mutable, rngs=jax.random.key(0))
    assert jax.tree.leaves(trained)[0].shape == jax.tree.leaves(y)[0].shape
    assert len(jax.tree.leaves(nnx.state(updated, nnx.BatchStat)))
