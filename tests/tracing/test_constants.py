"""A constant is not a parameter: what does not depend on the variables stays in the program."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repjax import count_operations, fuse
from tests.tracing.checks import check, depend_on_variables, error, image, leaves_called
from tests.tracing.parts import conv, norm, pool, relu, weights

pytestmark = pytest.mark.usefixtures("x64")

C = 4
W = weights(a=(3, 3, C, C), b=(3, 3, C, C), one=(1, 1, C, C), v=(C,), norm=C, dense=(C, 5))
X = functools.partial(image, 1, 6, 6, C)
ROOT = np.sqrt(2.0)
VECTOR = np.array([0.5, 2.0, -1.0, 3.0])
KERNEL = np.arange(9.0).reshape(3, 3, 1, 1) * np.ones(C)


def gelu(x):
    return jax.nn.gelu(x, approximate=False)


def erf_gelu(x):
    return 0.5 * x * (1 + jax.lax.erf(x / ROOT))


# What `check` asks of every program, that no fused leaf is a constant, is the point here.
PROGRAMS = {
    "a sum as PyTorch has it": lambda w, x: relu(relu(x) * 1.0 + conv(relu(x), w["a"])),
    "a difference as PyTorch has it": lambda w, x: relu(conv(x, w["a"]) - relu(x) * 1.0),
    "an identity that is doubled": lambda w, x: relu(2.0 * relu(x) + conv(x, w["a"])),
    "an identity that is halved": lambda w, x: relu(relu(x) / 2 + norm(w, conv(x, w["a"]))),
    "a constant vector beside": lambda w, x: relu(relu(x) * VECTOR + conv(x, w["a"])),
    "a constant vector before": lambda w, x: relu(conv(relu(x) * VECTOR, w["a"])),
    "a constant vector after": lambda w, x: relu(conv(x, w["a"]) * VECTOR),
    "a constant vector added": lambda w, x: relu(conv(x, w["a"]) + VECTOR),
    "constants alone": lambda w, x: relu(relu(x) * VECTOR + 1.0) * 3 - VECTOR,
    "negated twice": lambda w, x: relu(jnp.negative(-relu(x))),
    "a constant convolution": lambda w, x: relu(conv(x, KERNEL, groups=C)),
    "a constant convolution and another": lambda w, x: relu(
        conv(x, KERNEL, groups=C) + conv(x, w["a"])
    ),
    "a blur before a norm": lambda w, x: relu(norm(w, conv(relu(x), KERNEL, groups=C))),
    "two constant convolutions": lambda w, x: relu(
        conv(x, KERNEL, groups=C) + conv(x, KERNEL[1:2, 1:2], groups=C)
    ),
    "a pool alone": lambda w, x: relu(pool(relu(x)) * 4.0),
    "a mean": lambda w, x: relu(x).mean((1, 2)) @ w["dense"],
    "an exact gelu": lambda w, x: gelu(norm(w, conv(x, w["a"]))),
    "an exact gelu by hand": lambda w, x: erf_gelu(conv(x, w["a"]) + w["v"]),
    "an approximate gelu": lambda w, x: jax.nn.gelu(conv(x, w["a"]) + w["v"]),
    "a hard swish": lambda w, x: jax.nn.hard_swish(conv(x, w["a"]) + w["v"]),
    "a leaky relu": lambda w, x: jax.nn.leaky_relu(conv(x, w["a"]) + w["v"]),
    "an average of branches": lambda w, x: (relu(conv(x, w["a"])) + relu(conv(x, w["b"]))) / 2,
    "a shift by a constant that is undone": lambda w, x: relu(conv(x, w["a"]) + 3.0 - 3.0),
    "a weight that is no variable": lambda w, x: relu(conv(x, w["a"]) @ np.eye(C)),
    "a projection by constants": lambda w, x: relu(relu(x) @ np.tri(C)),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_no_fused_leaf_is_a_constant(name):
    before = count_operations(PROGRAMS[name], W, X())
    fused = check(PROGRAMS[name], W, X())
    after = count_operations(fused.apply, fused.params, X())
    assert after["mul"] + after["div"] <= before["mul"] + before["div"]
    assert after["conv_general_dilated"] <= before["conv_general_dilated"]


def test_an_identity_times_one_is_an_identity():
    def apply(w, x):
        y = relu(x)
        return relu(y * 1.0 + norm(w, conv(y, w["a"])))

    # y is a branch of the convolution: nothing is left of it
    check(apply, W, X(), after={"conv": 1}, products=0, shifts=1, gone=("mul",))


def test_an_identity_times_one_beside_another_input():
    def apply(w, x, z):
        return relu(relu(x) * 1.0 + norm(w, conv(z, w["a"])))

    check(apply, W, X(), X(seed=2), after={"conv": 1}, products=0, shifts=1, gone=("mul",))


GELUS = {"exact": gelu, "by hand": erf_gelu, "approximate": jax.nn.gelu}
OPERATIONS = ("mul", "div", "neg", "erf", "erfc", "tanh", "integer_pow", "add", "sub")


@pytest.mark.parametrize("name", GELUS)
@pytest.mark.parametrize("kind", ["conv", "dense"])
def test_a_gelu_is_left_as_it_is(name, kind):
    def linear(w, x):
        return conv(x, w["a"]) + w["v"] if kind == "conv" else x @ w["one"][0, 0] + w["v"]

    def apply(w, x):
        return GELUS[name](linear(w, x))

    fused = check(apply, W, X(), products=0, shifts=1)
    before, after = (
        count_operations(f, p, X()) for f, p in ((apply, W), (fused.apply, fused.params))
    )
    assert [after[name] for name in OPERATIONS] == [before[name] for name in OPERATIONS]


@pytest.mark.parametrize("name", GELUS)
def test_a_gelu_after_branches_is_what_it_is_after_one_convolution(name):
    def branches(w, x):
        return GELUS[name](norm(w, conv(x, w["a"]) + conv(x, w["one"]) + x))

    def single(w, x):
        return GELUS[name](conv(x, w["a"]) + w["v"])

    fused = check(branches, W, X(), after={"conv": 1}, products=0)
    expected, found = (
        count_operations(f, p, X()) for f, p in ((single, W), (fused.apply, fused.params))
    )
    assert [found[name] for name in OPERATIONS] == [expected[name] for name in OPERATIONS]


def test_fine_tuning_does_not_change_the_gelu():
    def apply(w, x):
        return gelu(norm(w, conv(x, w["a"])))

    fused = fuse(apply, W, X())
    assert {leaf.shape for leaf in jax.tree.leaves(fused.params)} == {(3, 3, C, C), (C,)}

    def loss(params):
        return (fused.apply(params, X()) ** 2).sum()

    slopes = jax.jit(jax.grad(loss))(fused.params)
    moved = jax.tree.map(lambda leaf, slope: leaf - 0.1 * slope, fused.params, slopes)
    kernel, bias = leaves_called(moved, "kernel")[0], leaves_called(moved, "bias")[0]
    assert error(gelu(conv(X(), kernel) + bias), fused.apply(moved, X())) <= 1e-12


def test_constants_of_a_merged_region_go_into_its_weights():
    def apply(w, x):
        y = 0.5 * conv(x, w["a"]) + VECTOR * conv(x, w["one"]) + 2.0 * x - 1.0
        return jnp.tanh(y)

    check(apply, W, X(), after={"conv": 1}, products=0, gone=("mul",))


def test_captured_arrays_are_constants():
    kernel = image(3, 3, C, C)

    def apply(w, x):
        return relu(conv(x, kernel) + w["v"])

    fused = check(apply, W, X(), after={"conv": 1})
    assert [leaf.shape for leaf in jax.tree.leaves(fused.params)] == [(C,)]


def test_integers_that_pass_through_are_no_concern():
    def apply(w, x):
        return x[..., : w["count"].shape[0]] * w["count"]

    fused = fuse(apply, {"count": jnp.arange(3)}, X())
    depend_on_variables(fused, {"count": jnp.arange(3)})
    assert error(X()[..., :3] * jnp.arange(3), fused.apply(fused.params, X())) == 0
