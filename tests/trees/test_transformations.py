"""`fuse_params` and `unfuse_params` under grad, vmap, jit and eval_shape."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

import repjax
from repjax.blocks import AveragePool, KxK, Norm, Pointwise, RepConv, Scale, Sequence
from tests.blocks.cases import described, largest, random_tree, random_variables, same
from tests.evaluate import evaluated
from tests.trees.networks import IMAGES, Network

BLOCKS = {
    "repvgg": RepConv(4),
    "sum": RepConv(4, norm="sum", use_bias=True, groups=2),
    "chain": RepConv(4, (KxK(3), Sequence(Norm(Pointwise()), AveragePool(3)), Scale(KxK(1)))),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", BLOCKS)
def test_gradient_through_the_fold_is_that_of_the_native_network(name: str) -> None:
    block = BLOCKS[name]
    x = IMAGES[..., [0, 1, 2, 0]]
    variables = random_variables(block, x)
    weights = random_tree({"y": jax.eval_shape(block.apply, variables, x)}, seed=3)["y"]

    def native(variables: Any) -> Any:
        return (jnp.sin(block.apply(variables, x)) * weights).sum()

    def fused(variables: Any) -> Any:
        y = block.deploy().apply(repjax.fuse_params(variables), x)
        return (jnp.sin(y) * weights).sum()

    wanted, found = evaluated(lambda v: (jax.grad(native)(v), jax.grad(fused)(v)))(variables)
    assert same(found, wanted, 1e-10)
    assert all(largest(leaf) > 0 for leaf in jax.tree.leaves(wanted["batch_stats"]))


def test_vmap_over_an_ensemble_of_trees(exact: Any, variables: Any) -> None:
    other = random_tree(exact, seed=9)
    members = [variables, jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), other)]
    ensemble = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    fused = jax.vmap(repjax.fuse_params)(ensemble)
    for number, member in enumerate(members):
        alone = repjax.fuse_params(member)
        assert same(jax.tree.map(lambda leaf: leaf[number], fused), alone, 1e-5)  # noqa: B023
    edited = jax.tree.map(lambda leaf: leaf * 1.5, fused)
    back = jax.vmap(repjax.unfuse_params)(edited, ensemble)
    assert described(back) == described(ensemble)
    assert same(jax.vmap(repjax.fuse_params)(back)["params"], edited["params"], 1e-4)


def test_jit_and_eval_shape(variables: Any) -> None:
    eager, jitted = repjax.fuse_params(variables), jax.jit(repjax.fuse_params)(variables)
    assert same(jitted, eager, 1e-6)
    abstract = jax.eval_shape(repjax.fuse_params, variables)
    assert described(abstract) == described(eager) == described(jitted)
    back = jax.jit(repjax.unfuse_params)(eager, variables)
    assert same(repjax.fuse_params(back), eager, 1e-4)


def test_abstract_leaves_are_pointed_to_eval_shape() -> None:
    x = jax.ShapeDtypeStruct(IMAGES.shape, jnp.float32)
    abstract = jax.eval_shape(Network().init, jax.random.key(0), x)
    with pytest.raises(repjax.MalformedTreeError, match=r"is abstract; use jax\.eval_shape"):
        repjax.fuse_params(abstract)


def test_training_goes_on_through_the_fold() -> None:
    """Steps of gradient descent on native parameters, with the loss of the deployed form."""
    x = jnp.asarray(IMAGES, jnp.float32)
    variables = evaluated(Network().init)(jax.random.key(0), x)

    @evaluated
    def step(params: Any) -> Any:
        def loss(params: Any) -> Any:
            fused = repjax.fuse_params({**variables, "params": params})
            return ((Network().deploy().apply(fused, x) - 1) ** 2).mean()

        value, slopes = jax.value_and_grad(loss)(params)
        return value, jax.tree.map(lambda p, g: p - 1e-2 * g, params, slopes)

    params, losses = variables["params"], []
    for _ in range(3):
        loss, params = step(params)
        losses.append(float(loss))
    assert described(params) == described(variables["params"])
    assert losses[2] < losses[1] < losses[0]
