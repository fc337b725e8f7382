"""Gradient re-parameterization: factors, decay, Adam, refusals.

That it trains as the branches do, for all of them, is in `tests/training`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import repjax
from repjax import branches as b
from repjax.optim import branch_decay, branch_gradient, branch_update

KEY = jax.random.key(5)
Scaled = b.Scale(b.Pointwise(), scale_init=jax.nn.initializers.normal(1.0))
# added branches, what is held constant, and whether J Jt is diagonal
SETS: dict[str, tuple[tuple[b.Branch, ...], tuple[str, ...], bool]] = {
    "residual": ((b.Pointwise(), b.Identity(optional=True)), (), True),
    "scaled": ((Scaled, b.Negate(b.Scale(b.KxK(3)))), ("scale",), True),
    "trained_scale": ((b.Scale(b.Identity()), b.KxK((3, 1))), (), True),
    "dilated": ((b.KxK(1, dilation=2), b.KxK(3)), (), True),
    "pooled": ((b.Sequence(b.Pointwise(), b.AveragePool(3)),), (), False),
    "chain": (
        (b.Sequence(b.Pointwise(), b.KxK(3), features=8),),
        ("_conv3x3/conv1x1/kernel",),
        False,
    ),
}


def setting(name: str, groups: int, size: int, features: int = 4) -> tuple[Any, Any, Any, Any]:
    added, ends, _ = SETS[name]
    rng = np.random.default_rng(groups + size)
    module = {
        "kernel": jnp.asarray(rng.normal(size=(size, size, 4 // groups, features)) / 5),
        "bias": jnp.asarray(rng.normal(size=features)),
    }
    plain = {"conv": module}
    wide = repjax.add_branches(plain, added, KEY, groups=groups)
    x = jnp.asarray(rng.normal(size=(2, 7, 6, 4)))

    def constants(path: str) -> bool:
        return path.endswith(ends) if ends else False

    def loss(tree: Any) -> Any:
        kernel, bias = tree["conv"]["kernel"], tree["conv"]["bias"]
        y = jax.lax.conv_general_dilated(
            x,
            kernel,
            (2, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )
        return jnp.sin(y + bias).var()

    return wide, plain, constants, loss


def steps(loss: Any, optimizer: Any, tree: Any, count: int = 15) -> Any:
    @jax.jit
    def step(tree: Any, state: Any) -> Any:
        change, state = optimizer.update(jax.grad(loss)(tree), state, tree)
        return optax.apply_updates(tree, change), state

    state = optimizer.init(tree)
    for _ in range(count):
        tree, state = step(tree, state)
    return tree, state


def held(optimizer: Any, wide: Any, constants: Any) -> Any:
    """An optimizer of the branches that leaves constants alone."""

    def label(path: Any, _: Any) -> str:
        return "held" if constants("/".join(entry.key for entry in path)) else "trained"

    labels = jax.tree_util.tree_map_with_path(label, wide)
    return optax.multi_transform({"trained": optimizer, "held": optax.set_to_zero()}, labels)


def close(one: Any, two: Any, tolerance: float = 1e-11) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(two)
    for a, c in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        assert np.abs(np.asarray(a) - np.asarray(c)).max() <= tolerance * np.abs(c).max()


@pytest.mark.parametrize("name", SETS)
def test_where_it_is_diagonal_it_is_one_product(name: str, x64: None) -> None:
    wide, plain, constants, _ = setting(name, 1, 3)
    transform = branch_gradient(wide, constants)
    program = jax.make_jaxpr(lambda g: transform.update(g, optax.EmptyState())[0])(plain)
    names = [equation.primitive.name for equation in program.jaxpr.eqns]
    assert (names == ["mul", "mul"]) == SETS[name][2]


def test_weight_decay_acts_on_what_is_trained(x64: None) -> None:
    wide, plain, constants, loss = setting("residual", 2, 3)
    mask = jax.tree.map(lambda leaf: leaf.ndim > 1, wide)
    rest = optax.sgd(0.1, 0.9, nesterov=True)
    native = optax.chain(optax.add_decayed_weights(0.1, mask), rest)
    branches, _ = steps(lambda tree: loss(repjax.fuse_params(tree)), native, wide)
    chain = optax.chain(branch_gradient(wide, constants), branch_decay(0.1, wide, constants), rest)
    kernel, _ = steps(loss, chain, plain)
    close(kernel, repjax.fuse_params(branches))


def test_adam_is_equal_up_to_its_epsilon_for_constants_of_both_signs(x64: None) -> None:
    wide, plain, constants, loss = setting("scaled", 1, 3)
    scale = next(iter(wide["conv"].values()))["conv1x1"]["scale"]
    assert bool((scale < 0).any())
    adam = optax.scale_by_adam(eps=1e-16)
    native = held(optax.chain(adam, optax.scale(-0.01)), wide, constants)
    branches, _ = steps(lambda tree: loss(repjax.fuse_params(tree)), native, wide)
    chain = optax.chain(adam, branch_update(wide, constants), optax.scale(-0.01))
    kernel, _ = steps(loss, chain, plain)
    close(kernel, repjax.fuse_params(branches), 1e-8)


def test_products_norms_and_moments_that_do_not_tell_are_refused() -> None:
    for name in ("scaled", "chain"):
        wide, *_ = setting(name, 1, 3)
        with pytest.raises(ValueError, match="both trained and multiplied") as error:
            branch_gradient(wide, lambda path: False)
        assert str(error.value).count("conv/y=") == 2
    wide, _, constants, _ = setting("pooled", 1, 3)
    with pytest.raises(ValueError, match="conv1x1/kernel: one number of it meets several"):
        branch_update(wide, constants)
    with pytest.raises(ValueError, match="holds all of its arrays"):
        branch_gradient(wide, lambda path: True)
    with pytest.raises(ValueError, match="no block with branches"):
        branch_gradient({"conv": {"kernel": jnp.ones((3, 3, 1, 1))}}, constants)
    with pytest.raises(TypeError, match="constants is a function"):
        branch_gradient(wide, "scale")  # type: ignore[arg-type]
    block = repjax.blocks.RepConv(2)
    variables = block.init(KEY, jnp.ones((1, 4, 4, 2)))
    with pytest.raises(ValueError, match="has a norm"):
        branch_gradient(variables, constants)
