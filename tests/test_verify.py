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


def randomize(variables, seed=0):
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
    return randomize(Network().init(jax.random.key(0), x)), x


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


def test_a_bf16_leaf_that_nothing_reads_does_not_loosen_the_bound():
    x, kernel = jnp.linspace(-1.0, 1.0, 12).reshape(3, 4), jnp.linspace(0.1, 1.0, 8).reshape(4, 2)

    @jax.jit
    def inner(kernel, step, x):
        return x @ kernel, step + 1

    def program(variables, x):
        return inner(variables["kernel"], variables["step"], x)[0]

    unused = {"kernel": kernel, "step": jnp.zeros((), jnp.bfloat16)}
    edited = {**unused, "kernel": kernel * (1 + 1e-4)}
    found = repjax.verify(program, unused, program, edited, x)
    assert not found
    assert found.dtype == "float32"
    used = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), unused)
    assert repjax.verify(program, used, program, used, x).dtype == "bfloat16"


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (lambda w, x: jax.nn.relu(-jnp.abs(x * w) - 1), "the output is zero"),
        (lambda w, x: x @ w * 0, "the output is zero"),
        (lambda w, x: jax.nn.relu(-jnp.abs(x * w)) + w, "does not depend on the inputs"),
        (lambda w, x: (jnp.ones(3), {"loss": w.sum()}), "does not depend on the inputs"),
    ],
)
def test_an_output_that_says_nothing_proves_nothing(program, words):
    x, w = jnp.linspace(-1.0, 1.0, 4), jnp.linspace(0.5, 1.5, 4)
    found = repjax.verify(program, w, program, w, x)
    assert not found
    assert found.verdict == "proves nothing"
    first = str(found).splitlines()[0]
    assert first.startswith("proves nothing (float32): the output ")
    assert words in first

    def moved(w, x):
        return jax.tree.map(lambda y: y + 1, program(w, x))

    different = repjax.verify(program, w, moved, w, x)
    assert different.verdict == "NOT equal"


def test_integer_inputs_and_programs_without_inputs_can_prove_something():
    table = jnp.linspace(0.5, 1.5, 10)
    tokens = jnp.array([3, 1, 4])
    assert repjax.verify(lambda t, i: t[i], table, lambda t, i: t[i], table, tokens)
    assert repjax.verify(jnp.sin, table, jnp.sin, table)


def test_keys_and_equal_infinities_are_compared_and_nan_is_said():
    key, x = jax.random.key(0), jnp.linspace(0.0, 1.0, 4)

    def keyed(variables, x):
        return jax.random.split(key, variables.shape[0]), x * variables

    assert repjax.verify(keyed, x, keyed, x, x)
    found = repjax.verify(keyed, x, lambda v, x: (jax.random.split(key, 5)[1:], x * v), x, x)
    assert "output 0 of type key<fry> differs" in str(found)

    def masked(variables, x):
        return jnp.where(x > 0.5, -jnp.inf, x * variables)

    found = repjax.verify(masked, x, masked, x, x)
    assert found
    assert np.isfinite([found.largest, found.difference, found.bound, found.worst]).all()
    found = repjax.verify(masked, x, lambda v, x: x * v, x, x)
    assert "infinite at 2 of 4 places in one of the two" in str(found)
    found = repjax.verify(lambda v, x: jnp.log(x - 0.5) * v, x, masked, x, x)
    assert "output 0 of a is NaN at 2 of 4 places" in str(found)


def test_leaves_that_are_no_arrays_are_handed_on():
    equinox = pytest.importorskip("equinox")
    keys = jax.random.split(jax.random.key(0))
    network = equinox.nn.Sequential(
        [
            equinox.nn.Linear(4, 8, key=keys[0]),
            equinox.nn.Lambda(jax.nn.relu),
            equinox.nn.Dropout(0.5, inference=True),
            equinox.nn.Linear(8, 3, key=keys[1]),
        ]
    )
    x = jnp.linspace(-1.0, 1.0, 4)

    def apply(network, x):
        return network(x)

    assert repjax.verify(apply, network, apply, network, x)
    changed = equinox.tree_at(lambda n: n.layers[0].weight, network, replace_fn=lambda w: w * 1.01)
    assert repjax.verify(apply, network, apply, changed, x).verdict == "NOT equal"
    named = {"activation": "tanh", "w": x}

    def chosen(variables, x):
        return getattr(jnp, variables["activation"])(variables["w"] * x)

    assert repjax.verify(chosen, named, chosen, named, x)
