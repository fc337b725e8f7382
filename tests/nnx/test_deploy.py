"""`deploy`: exact, anywhere in a module, once for what is shared, abstract and under jit."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import repjax.nnx
from repjax import blocks
from tests.blocks.cases import convolutions, largest, random_tree, same
from tests.evaluate import evaluated
from tests.nnx.pairs import arrays

X = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype(np.float32)


class Network(nnx.Module):
    """Blocks in a list, in a dict, alone, and one used twice; a head, dropout."""

    def __init__(self, rngs: nnx.Rngs, **fields: Any) -> None:
        shared = repjax.nnx.RepVGGBlock(4, 4, rngs=rngs, **fields)
        self.stages = nnx.List([shared, repjax.nnx.MobileOneBlock(4, 4, rngs=rngs, **fields)])
        self.again = nnx.Dict({"shared": shared})
        self.gated = repjax.nnx.RepVGGBlock(4, 6, squeeze_excite=2, strides=2, rngs=rngs, **fields)
        self.residual = repjax.nnx.ResidualConv(6, 6, rngs=rngs, **fields)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(6, 3, rngs=rngs, param_dtype=fields.get("param_dtype", jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        for stage in self.stages:
            x = stage(x)
        x = self.residual(self.gated(self.again["shared"](x)))
        return self.head(self.dropout(x.mean((1, 2))))


def network(**fields: Any) -> Network:
    model = Network(nnx.Rngs(0), **fields)
    params = nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat))
    pure = jax.tree.map(jnp.asarray, random_tree(nnx.to_pure_dict(params)))
    nnx.replace_by_pure_dict(params, pure)
    nnx.update(model, params)
    model.eval()
    return model


def forward(model: nnx.Module, x: Any) -> Any:
    graph, state = nnx.split(model)
    return evaluated(lambda state, x: nnx.merge(graph, state)(x))(state, x)


@pytest.mark.usefixtures("x64")
def test_exact_and_the_given_one_is_untouched() -> None:
    model = network(param_dtype=float)
    before, x = arrays(model), X.astype(float)
    wanted = forward(model, x)
    deployed = repjax.nnx.deploy(model)
    assert type(deployed) is Network
    assert same(arrays(model), before, 0)
    assert model.stages[0].conv is model.again["shared"].conv
    found = forward(deployed, x)
    assert largest(found - wanted) <= 1e-12 * largest(wanted)
    assert convolutions(lambda x: deployed(x), x) == 5
    assert convolutions(lambda x: model(x), x) == 10
    assert largest(forward(repjax.nnx.deploy(deployed), x) - found) == 0


def test_what_is_shared_is_fused_once_and_stays_shared() -> None:
    deployed = repjax.nnx.deploy(network())
    assert deployed.stages[0] is deployed.again["shared"]
    assert len(jax.tree.leaves(nnx.state(deployed, nnx.BatchStat))) == 0
    kernels = [leaf for leaf in jax.tree.leaves(nnx.state(deployed, nnx.Param)) if leaf.ndim == 4]
    assert len(kernels) == 4
    deployed.stages[0].conv.bias[...] += 1
    assert (deployed.again["shared"].conv.bias[...] == deployed.stages[0].conv.bias[...]).all()


def test_a_deployed_model_is_one_made_so() -> None:
    made = repjax.nnx.RepVGGBlock(4, 4, deployed=True, rngs=nnx.Rngs(0))
    deployed = repjax.nnx.deploy(repjax.nnx.RepVGGBlock(4, 4, rngs=nnx.Rngs(0)))
    assert list(nnx.state(made)["conv"]) == list(nnx.state(deployed)["conv"])
    nnx.update(made, nnx.state(deployed))
    assert largest(made(X) - deployed(X)) == 0


def test_under_jit() -> None:
    model = network()

    @nnx.jit
    def inside(model: Network, x: Any) -> Any:
        deployed = repjax.nnx.deploy(model)
        return deployed(x), deployed

    y, deployed = inside(model, X)
    wanted = model(X)
    assert largest(y - wanted) <= 1e-4 * largest(wanted)
    assert same(arrays(deployed.residual), arrays(repjax.nnx.deploy(model).residual), 1e-5)


def test_abstract() -> None:
    abstract = nnx.eval_shape(lambda: Network(nnx.Rngs(0)))
    deployed = repjax.nnx.deploy(abstract)
    concrete = repjax.nnx.deploy(Network(nnx.Rngs(0)))
    leaves = jax.tree.leaves(nnx.state(deployed))
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)
    shapes = [leaf.shape for leaf in jax.tree.leaves(nnx.state(concrete))]
    assert [leaf.shape for leaf in leaves] == shapes


def test_blocks_through_the_bridge() -> None:
    bridged = nnx.bridge.ToNNX(blocks.RepVGGBlock(4), rngs=nnx.Rngs(0)).lazy_init(X)
    deployed = repjax.nnx.deploy(nnx.List([bridged]))[0]
    assert largest(deployed(X) - bridged(X)) <= 1e-5 * largest(bridged(X))
    assert set(deployed.conv) == {"kernel", "bias"}


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(TypeError, match=r"takes an nnx.Module, found dict; .*fuse_params"):
        repjax.nnx.deploy({})  # type: ignore[type-var]
