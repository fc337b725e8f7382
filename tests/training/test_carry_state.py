"""A run goes on when branches are added or folded: what happens to the optimizer's state."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import repjax
from repjax.branches import Identity, Pointwise, Scale
from repjax.optim import carry_state

KEY = jax.random.key(5)
ADDED = (Scale(Pointwise(kernel_init=jax.nn.initializers.uniform(0.5))), Identity(optional=True))


def plain_tree() -> Any:
    rng = np.random.default_rng(0)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 4, 4)), jnp.float32)
    conv = {"kernel": kernel, "bias": jnp.ones(4)}
    return {"conv": conv, "norm": {"scale": jnp.ones(4)}, "head": {"kernel": jnp.ones((4, 2))}}


def name_of(path: Any) -> str:
    return str(path[-1].key)


def kernels(tree: Any) -> Any:
    """A mask: decay and momentum for kernels alone, in whatever tree."""
    return jax.tree_util.tree_map_with_path(lambda path, _: name_of(path) == "kernel", tree)


def labels(tree: Any) -> Any:
    label = {"kernel": "fast", "bias": "slow", "scale": "held"}
    return jax.tree_util.tree_map_with_path(lambda path, _: label[name_of(path)], tree)


OPTIMIZERS: dict[str, optax.GradientTransformation] = {
    "momentum": optax.chain(optax.trace(0.9), optax.scale_by_schedule(lambda n: -0.1 / (1 + n))),
    "adam": optax.adamw(0.1, weight_decay=0.1, mask=kernels),
    "masked": optax.chain(
        optax.add_decayed_weights(0.1, mask=kernels),
        optax.masked(optax.trace(0.9, nesterov=True), kernels),
        optax.scale(-0.1),
    ),
    "partitioned": optax.multi_transform(
        {"fast": optax.sgd(0.1, 0.9), "slow": optax.adam(0.01), "held": optax.set_to_zero()}, labels
    ),
    "hyperparameters": optax.inject_hyperparams(optax.sgd)(learning_rate=0.1, momentum=0.9),
    "averaged gradients": optax.MultiSteps(
        optax.sgd(0.1, 0.9), every_k_schedule=3
    ).gradient_transformation(),
}


FOLDED = tuple(f"{field}/conv/{name}" for field in ("trace", "mu") for name in ("kernel", "bias"))


def some_state(optimizer: optax.GradientTransformation, tree: Any) -> Any:
    """A state as if some steps had been taken: other numbers in every array."""
    rng = np.random.default_rng(1)

    def drawn(leaf: Any) -> Any:
        if jnp.issubdtype(leaf.dtype, jnp.floating) and leaf.ndim:
            return jnp.asarray(rng.uniform(1, 2, leaf.shape), leaf.dtype)
        return leaf + 3 if jnp.issubdtype(leaf.dtype, jnp.integer) else leaf

    return jax.tree.map(drawn, optimizer.init(tree))


def leaves(state: Any) -> dict[str, Any]:
    """Arrays by their paths, the name of the node left out, so that trees can be compared."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        words = [str(getattr(entry, "key", getattr(entry, "name", entry))) for entry in path]
        found["/".join(word for word in words if not word.startswith("y="))] = leaf
    return found


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_moved_kernel_keeps_its_state_and_new_arrays_start_fresh(name: str) -> None:
    optimizer, plain = OPTIMIZERS[name], plain_tree()
    wide = repjax.add_branches(plain, ADDED, KEY)
    state = some_state(optimizer, plain)
    carried = carry_state(optimizer, state, plain, wide)
    assert jax.tree.structure(carried) == jax.tree.structure(optimizer.init(wide))
    before, after, fresh = (leaves(one) for one in (state, carried, optimizer.init(wide)))
    for path, leaf in after.items():
        if "/conv1x1/" in path:
            np.testing.assert_array_equal(leaf, fresh[path], path)
        else:
            np.testing.assert_array_equal(leaf, before[path.replace("/conv3x3", "")], path)
    optimizer.update(jax.tree.map(jnp.ones_like, wide), carried, wide)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_momentum_folds_like_the_parameters_and_second_moments_restart(name: str) -> None:
    optimizer, plain = OPTIMIZERS[name], plain_tree()
    wide = repjax.add_branches(plain, ADDED, KEY)
    state = some_state(optimizer, wide)
    back = repjax.fuse_params(wide)
    carried = carry_state(optimizer, state, wide, back)
    assert jax.tree.structure(carried) == jax.tree.structure(optimizer.init(back))
    before, after = leaves(state), leaves(carried)
    (node,) = wide["conv"].values()
    for path, leaf in after.items():
        if not path.endswith("conv/kernel"):
            own = path.replace("conv/bias", "conv/conv3x3/bias")
            restarts = own != path and not path.endswith(FOLDED)
            wanted = jnp.zeros_like(leaf) if restarts else before[own]
        elif path.endswith(FOLDED):
            one = path.removesuffix("kernel")
            scale = before.get(f"{one}conv1x1/scale", 0.0)
            thin = before[f"{one}conv1x1/kernel"] * node["conv1x1"]["scale"]
            thin += node["conv1x1"]["kernel"] * scale
            wanted = before[f"{one}conv3x3/kernel"].at[1, 1].add(thin[0, 0])
        else:
            wanted = jnp.zeros_like(leaf)
        np.testing.assert_allclose(leaf, wanted, rtol=1e-6, err_msg=path)
    optimizer.update(jax.tree.map(jnp.ones_like, back), carried, back)


def test_a_run_goes_on_as_if_nothing_had_happened() -> None:
    """Adding and folding between two steps changes neither the network nor its momentum."""
    optimizer, plain = optax.sgd(0.1, momentum=0.9), plain_tree()
    state = some_state(optimizer, plain)
    wide = repjax.add_branches(plain, ADDED, KEY)
    carried = carry_state(optimizer, state, plain, wide)
    back = repjax.fuse_params(wide)
    again = carry_state(optimizer, carried, wide, back)
    for found, wanted in ((back, plain), (again, state)):
        for one, two in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)


def test_all_collections_and_the_state_of_another_optimizer() -> None:
    variables = {"params": plain_tree(), "batch_stats": {"norm": {"mean": jnp.ones(4)}}}
    wide = repjax.add_branches(variables, ADDED, KEY)
    optimizer = optax.adam(0.1)
    state = some_state(optimizer, variables["params"])
    carried = carry_state(optimizer, state, variables, wide)
    assert jax.tree.structure(carried) == jax.tree.structure(optimizer.init(wide["params"]))
    with pytest.raises(ValueError, match="state is not what this optimizer has"):
        carry_state(optax.sgd(0.1, 0.9), state, variables, wide)
