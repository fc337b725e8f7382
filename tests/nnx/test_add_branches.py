"""Branches beside the convolutions of an NNX module, on its state."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import repjax
from repjax.branches import Identity, Pointwise


class Net(nnx.Module):
    """A convolution and a norm, as anybody would write them."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(4, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return nnx.relu(self.norm(self.conv(x)))


def test_a_state_comes_back_as_a_state_and_the_network_computes_the_same() -> None:
    model = Net(nnx.Rngs(0))
    model.eval()
    graph, state = nnx.split(model)
    wide = repjax.add_branches(state, (Pointwise(), Identity()), jax.random.key(1))
    assert isinstance(wide, nnx.State)
    assert list(wide["conv"]) == ["y=conv3x3[bias]+conv1x1+identity"]
    back = repjax.fuse_params(wide)
    assert isinstance(back, nnx.State)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 7, 7, 4)), jnp.float32)
    np.testing.assert_allclose(nnx.merge(graph, back)(x), model(x), rtol=1e-5, atol=1e-5)


def test_training_passes_the_fold() -> None:
    graph, state = nnx.split(Net(nnx.Rngs(0)))
    wide = repjax.add_branches(state, (Pointwise(),), jax.random.key(1))
    x = jnp.ones((1, 5, 5, 4))

    def loss(wide: nnx.State) -> jax.Array:
        return jnp.sum(nnx.merge(graph, repjax.fuse_params(wide))(x) ** 2)

    model = nnx.merge(graph, state)
    model.eval()
    graph, state = nnx.split(model)
    slopes = jax.grad(loss)(wide)
    assert isinstance(slopes, nnx.State)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))
