"""A shift that meets zero padding: the convolution takes it, exact at the border.

What the shift becomes is one more small kernel, `bias_map`, the same array for every image.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import repjax
from tests.tracing.checks import check, counts, error, gap, image, leaves_called, named_leaves
from tests.tracing.parts import conv, keras_norm, norm, pool, relu, weights
from tests.tracing.reading import work

pytestmark = pytest.mark.usefixtures("x64")

C = 4
W = weights(
    stem=(3, 3, 3, C), bias=(C,), a=(3, 3, C, C), b=(3, 3, C, C), one=(1, 1, C, C),
    two=(1, 1, C, C), long=(1, 3, C, C), dw=(3, 3, 1, C), v=(C,), u=(C,), norm=C, n1=C, n0=C,
    mean=(3,), spread=(3,),
)  # fmt: skip
X = functools.partial(image, 1, 7, 6, C)
PIXELS = functools.partial(image, 1, 7, 6, 3)
MEAN, SPREAD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])

NORMALIZED = {
    "rescaled": lambda w, x: x * (1 / 127.5) - 1.0,
    "rescaled by a quotient": lambda w, x: x / 127.5 - 1.0,
    "by constants": lambda w, x: (x - MEAN) / SPREAD,
    "by a product": lambda w, x: (x - MEAN) * (1 / SPREAD),
    "by variables": lambda w, x: (x - w["mean"]) / (2 + jnp.tanh(w["spread"])),
    "by itself": lambda w, x: x - 0.5,
}


@pytest.mark.parametrize("strides", [2, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NORMALIZED)
def test_input_normalization_goes_into_a_padded_stem(name, strides):
    def apply(w, x):
        return relu(norm(w, conv(NORMALIZED[name](w, x), w["stem"], strides, 1) + w["bias"]))

    fused = check(apply, W, PIXELS(), after={"conv": 1}, products=0, shifts=1)
    assert work(fused.apply, fused.params, PIXELS()).scalars == 0
    (border,) = leaves_called(fused.params, "bias_map")
    assert border.shape == (3, 3, 1, C)
    for shape in ((2, 8, 9, 3), (1, 1, 2, 3)):
        x = image(*shape)
        assert gap(apply, W, fused, x) <= 1e-12
        assert counts(fused.apply, fused.params, x) == {"conv": 1}


def test_gradients_pass_a_bias_map():
    def apply(w, x):
        return jnp.tanh(norm(w, conv((x - w["mean"]) / 0.3, w["stem"], 2, 1)))

    check(apply, W, PIXELS(), after={"conv": 1}, products=0, gradients=True)


def test_integers_are_normalized_in_the_stem():
    def apply(w, x):
        return relu(conv(x.astype(jnp.float64) / 255 - 0.5, w["stem"], 2, 1))

    x = jnp.arange(7 * 6 * 3, dtype=jnp.uint8).reshape(1, 7, 6, 3)
    fused = check(apply, W, x, after={"conv": 1}, shifts=1)
    assert work(fused.apply, fused.params, x).scalars == 0


def padded(x, low=1, high=1, value=0.0):
    return jnp.pad(x, ((0, 0), (low, high), (low, high), (0, 0)), constant_values=value)


BEFORE = {
    "norm": lambda w, x: conv(norm(w, x), w["a"]),
    "norm as Keras has it": lambda w, x: conv(keras_norm(w, x), w["a"]),
    "a pointwise convolution": lambda w, x: conv(conv(x, w["one"]) + w["v"], w["a"]),
    "a dense layer": lambda w, x: conv(x @ w["one"][0, 0] + w["v"], w["a"]),
    "a pointwise convolution and norm": lambda w, x: conv(norm(w, conv(x, w["one"])), w["a"]),
    "with strides": lambda w, x: conv(conv(x, w["one"]) + w["v"], w["a"], 2, 1) + w["u"],
    "depthwise": lambda w, x: conv(norm(w, x), w["dw"], groups=C),
    "padding by itself": lambda w, x: conv(padded(norm(w, x)), w["a"], padding="VALID"),
    "padding on one side": lambda w, x: conv(padded(norm(w, x), 0, 2), w["a"], padding="VALID"),
    "wide padding": lambda w, x: conv(norm(w, x), w["a"], padding=4),
    "one axis": lambda w, x: conv(norm(w, x), w["long"]),
    "norms on both sides": lambda w, x: norm(w, conv(norm(w, x, "n0"), w["a"]), "n1"),
    "then a pointwise convolution": lambda w, x: conv(conv(norm(w, x), w["a"]), w["one"]) + w["u"],
    "two shifts, one padded twice": lambda w, x: conv(padded(x + w["v"]) + w["u"], w["a"]),
    "a shift between crop and padding": lambda w, x: conv(x[:, 1:, :-1] + w["v"], w["a"]) + w["u"],
    "a padded average": lambda w, x: norm(w, pool(conv(x, w["one"]) + w["v"], 3, 1, 1)),
    "a crop of one side": lambda w, x: conv(norm(w, x), w["a"])[:, :-2, 1:],
    "strides afterwards": lambda w, x: conv(norm(w, x), w["a"])[:, ::2, 1::2],
}


@pytest.mark.parametrize("name", BEFORE)
def test_a_shift_before_zero_padding(name):
    def apply(w, x):
        return jnp.tanh(BEFORE[name](w, x))

    x = image(1, 14, 13, C)
    both = {"conv": 1, "pool": 1} if name == "a padded average" else {"conv": 1}
    fused = check(apply, W, x, after=both, products=0, shifts=1)
    assert leaves_called(fused.params, "bias_map")
    assert stored(fused.params) <= sum(leaf.size for leaf in jax.tree.leaves(W))
    x = image(2, 6, 5, C)
    assert gap(apply, W, fused, x) <= 1e-12


def stored(params):
    """Numbers stored, bias maps apart."""
    leaves = named_leaves(params)
    return sum(leaf.size for path, leaf in leaves if "bias_map" not in path)


BRANCHES = {
    "one input": lambda w, x: norm(w, conv(x, w["a"])) + norm(w, conv(x, w["one"]), "n1") + x,
    "two shifts": lambda w, x: conv(x + w["v"], w["b"]) - conv(x - w["u"], w["a"]),
    "a border and none": lambda w, x: conv(x, w["long"]) + conv(x, w["two"]) + norm(w, x, "n0"),
    "strides": lambda w, x: conv(x, w["a"], 2, 1) + norm(w, conv(x, w["one"], 2, 0), "n1"),
}


@pytest.mark.parametrize("name", BRANCHES)
def test_branches_behind_one_shift_are_one_convolution(name):
    def apply(w, x):
        return relu(BRANCHES[name](w, keras_norm(w, x)))

    fused = check(apply, W, X(), after={"conv": 1}, products=0, shifts=1)
    assert len(leaves_called(fused.params, "bias_map")) == 1


def test_a_separable_pair_behind_a_norm():
    def apply(w, x):
        return relu(norm(w, conv(conv(norm(w, x, "n0"), w["dw"], groups=C), w["one"]), "n1"))

    # one 3x3 would have 36 multiply-accumulates for each number instead of 9 + 4; the map of the
    # first shift passes the 1x1 and takes the other shift in
    check(apply, W, image(1, 9, 9, C), after={"conv": 2}, products=0, shifts=1)


PLAIN = {
    "no padding": lambda w, x: conv(norm(w, x), w["a"], padding="VALID"),
    "padding before the shift": lambda w, x: conv(norm(w, padded(x)), w["a"], padding="VALID"),
    "the border cropped": lambda w, x: conv(norm(w, x), w["a"])[:, 1:-1, 1:-1],
    "a border of the shift": lambda w, x: conv(
        padded(conv(x, w["one"])) + w["v"], w["a"], padding="VALID"
    ),
    "zeros added": lambda w, x: conv(conv(x, w["one"]) + w["v"] - w["v"], w["a"]) + w["u"],
}


@pytest.mark.parametrize("name", PLAIN)
def test_no_map_where_no_shift_meets_the_border(name):
    def apply(w, x):
        return jnp.tanh(PLAIN[name](w, x))

    fused = check(apply, W, X(), after={"conv": 1}, products=0, shifts=1)
    assert not leaves_called(fused.params, "bias_map")


def convolve_twice(between):
    def apply(w, x):
        return jnp.tanh(conv(between(w, conv(x, w["a"])), w["b"]))

    return apply


APART = {
    "two padded kernels": (convolve_twice(lambda w, x: x), {"conv": 2}),
    "two padded kernels and a shift": (convolve_twice(lambda w, x: x + w["v"]), {"conv": 2}),
    "non-linear": (lambda w, x: conv(relu(conv(x, w["one"]) + w["v"]), w["a"]), {"conv": 2}),
    "maximum": (lambda w, x: conv(jnp.maximum(norm(w, x), x), w["a"]), {"conv": 1}),
    "an output": (lambda w, x: (y := conv(x, w["one"]) + w["v"], conv(y, w["a"])), {"conv": 2}),
}


@pytest.mark.parametrize("name", APART)
def test_kept_apart(name):
    apply, after = APART[name]
    check(apply, W, X(), before=after, after=after)


def test_channels_first():
    numbers = ("NCHW", "OIHW", "NCHW")

    def apply(w, x):
        y = (x - MEAN[:, None, None]) / SPREAD[:, None, None]
        k = w["stem"].transpose(3, 2, 0, 1)
        return relu(
            jax.lax.conv_general_dilated(y, k, (2, 2), [(1, 1)] * 2, dimension_numbers=numbers)
            + w["bias"][:, None, None]
        )

    fused = check(apply, W, image(2, 3, 8, 7), after={"conv": 1}, products=0, shifts=1)
    assert len(leaves_called(fused.params, "bias_map")) == 1


def test_a_map_under_every_transformation():
    def apply(w, x):
        return relu(conv((x - MEAN) / SPREAD, w["stem"], 2, 1) + w["bias"])

    fused = repjax.fuse(apply, W, jax.ShapeDtypeStruct((1, 7, 6, 3), jnp.float64))
    many = image(3, 2, 7, 6, 3)
    expected = jax.vmap(functools.partial(apply, W))(many)
    found = jax.jit(jax.vmap(fused.apply, (None, 0)))(fused.params, many)
    assert error(expected, found) <= 1e-12
    slope = jax.jit(jax.grad(lambda p: fused.apply(p, many[0]).sum()))(fused.params)
    assert float(jnp.abs(leaves_called(slope, "bias_map")[0]).max()) > 0
    spec = jax.ShapeDtypeStruct(jax.export.symbolic_shape("b, 7, 6, 3"), jnp.float64)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), fused.params)
    exported = jax.export.export(jax.jit(fused.apply))(shapes, spec)
    assert error(expected[0], exported.call(fused.params, many[0])) <= 1e-12
