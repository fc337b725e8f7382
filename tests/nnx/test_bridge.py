"""Linen blocks and networks through `nnx.bridge.ToNNX`: they run, train and fuse."""

from __future__ import annotations

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


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_runs_trains_and_fuses(name: str) -> None:
    linen = module_of(name)
    trains = "train" in str(nn.module.inspect.signature(type(linen).__call__))
    rngs = nnx.Rngs(0)
    model = nnx.bridge.ToNNX(linen, rngs=rngs).lazy_init(X)
    variables = jax.eval_shape(linen.init, jax.random.key(0), X)
    taken = {*dir(type(linen)), *dir(nnx.Module)}
    assert not names_below(variables) & taken
    y = model(X)
    if trains and "batch_stats" in variables:
        graph, params, rest = nnx.split(model, nnx.Param, ...)

        def loss(params: Any, rest: Any) -> Any:
            inside = nnx.merge(graph, params, rest, copy=True)
            out = inside(X, train=True, mutable=["batch_stats"])
            return (out**2).sum(), nnx.state(inside, nnx.BatchStat)

        shape = jax.eval_shape(jax.grad(loss, has_aux=True), params, rest)
        assert jax.tree.structure(shape[0]) == jax.tree.structure(params)
        assert len(jax.tree.leaves(shape[1])) == len(jax.tree.leaves(variables["batch_stats"]))
    found = repjax.nnx.deploy(model)(X)
    assert largest(found - y) <= 1e-4 * largest(y)


@pytest.mark.parametrize("name", FIRST.values())
def test_a_network_of_each_family(name: str) -> None:
    linen = models.create(name, num_classes=10)
    x = jnp.zeros((1, 64, 64, linen.in_channels))
    variables = jax.eval_shape(linen.init, jax.random.key(0), x)
    assert not names_below(variables) & {*dir(type(linen)), *dir(nnx.Module)}
    abstract = nnx.eval_shape(lambda: nnx.bridge.ToNNX(linen, rngs=nnx.Rngs(0)).lazy_init(x))
    deployed = repjax.nnx.deploy(abstract)

    def run(model: Any, **fields: Any) -> Any:
        return nnx.eval_shape(lambda model: (model(x, **fields), model), model)

    y, _ = run(abstract)
    assert run(deployed)[0].shape == y.shape
    trained, updated = run(abstract, train=True, mutable=["batch_stats"], rngs=jax.random.key(0))
    assert jax.tree.leaves(trained)[0].shape == jax.tree.leaves(y)[0].shape
    assert len(jax.tree.leaves(nnx.state(updated, nnx.BatchStat)))
