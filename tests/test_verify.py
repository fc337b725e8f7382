"""`verify` tells equal programs from unequal ones, in every type, and says how far apart."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import repjax
from repjax.blocks import RepVGGBlock


class Network(nn.Module):
    dtype: object = None
    deployed: bool = False

    @nn.compact
    def __call__(self, x, train=False):
        for strides in (2, 1):
            x = RepVGGBlock(6, strides=strides, dtype=self.dtype, deployed=self.deployed)(x, train)
        return nn.Dense(3, dtype=self.dtype)(x.mean((1, 2)))


def randomise(variables, seed=0):
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        value = rng.normal(size=leaf.shape)
        if path[-1].key == "var":
            value = np.abs(value) + 0.05
        elif path[-1].key == "kernel":
            value /= np.sqrt(np.prod(leaf.shape[:-1]))
        return jnp.asarray(value, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, variables)


@pytest.fixture(scope="module")
def case():
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 7, 8, 3)), jnp.float32)
    return randomise(Network().init(jax.random.key(0), x)), x


@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
def test_a_correct_fold_is_equal_and_an_edited_one_is_not(case, dtype):
    variables, x = case
    native, fused = Network(dtype), Network(dtype, deployed=True)
    deployed = repjax.fuse_params(variables)
    found = repjax.verify(native.apply, variables, fused.apply, deployed, x)
    assert found
    assert found.worst < 0.6
    assert found.dtype == ("float32" if dtype is None else "bfloat16")
    assert 0 < found.difference < 1e-5 * found.largest
    assert "equal to rounding" in str(found)
    deployed["params"]["RepVGGBlock_1"]["conv"]["kernel"] *= 1 + 1e-4
    edited = repjax.verify(native.apply, variables, fused.apply, deployed, x)
    assert not edited
    assert "NOT equal" in str(edited)


def test_float64_is_held_to_float64(case):
    variables, x = case
    with jax.enable_x64(True):
        variables, x = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), (variables, x))
        deployed = repjax.fuse_params(variables)
        fused = Network(deployed=True)
        found = repjax.verify(Network().apply, variables, fused.apply, deployed, x)
        assert found
        assert found.difference < 1e-13 * found.largest
        deployed["params"]["RepVGGBlock_1"]["conv"]["kernel"] *= 1 + 1e-12
        assert not repjax.verify(Network().apply, variables, fused.apply, deployed, x)


def test_modules_that_cast_down_are_promoted_all_the_same():
    def down(scale, x):
        return (x.astype(jnp.bfloat16) * scale.astype(jnp.bfloat16)).astype(jnp.float32)

    def plain(scale, x):
        return x * scale

    x, scale = jnp.linspace(0.1, 1.0, 50), jnp.float32(1.2345)
    found = repjax.verify(down, scale, plain, scale, x)
    assert found.difference == 0.0
    assert found.error_a > 1e-4
    assert found.dtype == "bfloat16"


def test_loops_branches_keys_integers_and_pytrees_pass():
    def program(variables, x, key):
        noise = jax.random.normal(key, x.shape)
        total, steps = jax.lax.scan(lambda c, w: (c * w, c), x + noise, variables["w"])
        total = jax.lax.cond(True, jnp.sin, jnp.cos, total)
        total = jax.lax.fori_loop(0, 3, lambda _, v: v * variables["w"][0], total)
        return {"total": total, "steps": steps, "argmax": x.argmax(), "relu": jax.nn.relu(x)}

    variables = {"w": jnp.array([0.5, 0.25])}
    args = jnp.linspace(-1.0, 1.0, 5), jax.random.key(0)
    assert repjax.verify(program, variables, program, variables, *args)
    other = {"w": jnp.array([0.5, 0.26])}
    assert not repjax.verify(program, variables, program, other, *args)


def test_outputs_that_cannot_be_compared_are_said_so():
    x = jnp.ones(3)
    found = repjax.verify(lambda _, x: x, None, lambda _, x: x[:2], None, x)
    assert not found
    assert "shapes differ" in str(found)
    found = repjax.verify(lambda _, x: x, None, lambda _, x: (x, x), None, x)
    assert "outputs are" in str(found)
    found = repjax.verify(lambda _, x: x.argmax(), None, lambda _, x: x.argmin() + 1, None, x)
    assert "int32 differs" in str(found)
