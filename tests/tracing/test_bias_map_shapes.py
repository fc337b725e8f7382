"""Bias maps of every geometry, and weights that vary over positions."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import repjax
from tests.tracing.checks import check, error, gap, image, leaves_called, mostly_slow, numbers
from tests.tracing.parts import conv, norm, relu, weights

pytestmark = pytest.mark.usefixtures("x64")

C = 4
# kernel size, strides, low and high padding, dilation, groups
GEOMETRIES = {
    "3": (3, 1, (1, 1), 1, 1),
    "3 with strides": (3, 2, (1, 1), 1, 1),
    "3 with strides and one-sided padding": (3, 2, (0, 1), 1, 1),
    "3 dilated": (3, 1, (2, 2), 2, 1),
    "3 dilated with strides": (3, 3, (2, 1), 2, 1),
    "5": (5, 1, (2, 2), 1, 1),
    "5 with strides": (5, 2, (1, 2), 1, 1),
    "even": (2, 1, (0, 1), 1, 1),
    "even with strides": (4, 2, (1, 1), 1, 1),
    "even, all around": (2, 1, (1, 1), 1, 1),
    "groups": (3, 1, (1, 1), 1, 2),
    "depthwise": (3, 2, (1, 1), 1, C),
    "more padding than kernel": (3, 1, (4, 5), 1, 1),
    "more padding than kernel with strides": (2, 3, (5, 2), 1, 1),
    "padding of a pointwise convolution": (1, 1, (1, 2), 1, 1),
    "negative padding on one side": (3, 1, (-1, 1), 1, 1),
}
ALWAYS = (
    *("3", "3 with strides and one-sided padding", "3 dilated with strides", "even with strides"),
    *("groups", "depthwise", "more padding than kernel with strides"),
)


@pytest.mark.parametrize("dims", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", mostly_slow(GEOMETRIES, *ALWAYS))
def test_geometry(name, dims):
    size, strides, padding, dilation, groups = GEOMETRIES[name]
    w = {
        "k": numbers(*(size,) * dims, C // groups, C),
        "scale": numbers(C, seed=2),
        "shift": numbers(C, seed=3),
    }

    def apply(w, x):
        y = x * w["scale"] + w["shift"]
        return jnp.tanh(conv(y, w["k"], strides, [padding] * dims, dilation, groups))

    fused = check(apply, w, image(1, *(16,) * dims, C), after={"conv": 1}, products=0, shifts=1)
    (border,) = leaves_called(fused.params, "bias_map")
    assert border.shape == (*(size,) * dims, 1, C)
    for small in (7, 3, 1) if dims == 1 else (8, 7, 3, 2, 1):
        if small + sum(padding) > dilation * (size - 1):
            x = image(2, *(small,) * dims, C)
            assert gap(apply, w, fused, x) <= 1e-12


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_dimensions_and_unequal_sizes(dims):
    w = weights(k=(2, 3, 1, C, C)[3 - dims :], shift=(C,), bias=(C,))

    def apply(w, x):
        pads = [(0, 1), (1, 1), (2, 0)][3 - dims :]
        return jnp.tanh(conv(x + w["shift"], w["k"], padding=pads) + w["bias"])

    sizes = (5, 4, 6)[3 - dims :]
    fused = check(apply, w, image(1, *sizes, C), after={"conv": 1}, shifts=1)
    x = image(2, *(3,) * dims, C)
    assert gap(apply, w, fused, x) <= 1e-12


def test_a_transposed_convolution_behind_a_shift():
    numbers = ("NHWC", "HWIO", "NHWC")
    w = weights(k=(4, 4, C, C), shift=(C,))

    def apply(w, x):
        y = jax.lax.conv_general_dilated(
            *(x + w["shift"], w["k"], (1, 1), [(2, 2)] * 2),
            lhs_dilation=(2, 2),
            dimension_numbers=numbers,
        )
        return jnp.tanh(y)

    check(apply, w, image(1, 6, 6, C), before={"conv": 1}, after={"conv": 1})


def random_chain(seed):
    """A shift, then pads, crops, strides and pointwise maps around one spatial kernel."""
    rng = np.random.default_rng(seed)
    w, steps = {}, []

    def step(kind):
        name = f"{kind}{len(w)}"
        if kind == "shift":
            w[name] = rng.normal(size=C)
        elif kind == "dense":
            w[name] = rng.normal(size=(1, C, C)) / 2
        elif kind == "conv":
            w[name] = rng.normal(size=(int(rng.integers(2, 5)), C, C)) / 3
        pads = tuple(int(p) for p in rng.integers(0, 2 if kind == "crop" else 3, 2))
        steps.append((kind, name, pads, int(rng.integers(1, 3)), int(rng.integers(1, 3))))

    for kind in rng.choice(["shift", "dense", "pad", "crop"], 3):
        step(kind)
    step("shift")
    step("conv")
    for kind in rng.choice(["shift", "dense", "crop", "stride"], 2):
        step(kind)

    def apply(w, x):
        for kind, name, (low, high), strides, dilation in steps:
            if kind == "shift":
                x = x + w[name]
            elif kind == "dense":
                x = conv(x, w[name])
            elif kind == "conv":
                x = conv(x, w[name], strides, [(low, high)], dilation)
            elif kind == "pad":
                x = jnp.pad(x, ((0, 0), (low, high), (0, 0)))
            elif kind == "crop":
                x = x[:, low : x.shape[1] - high]
            else:
                x = x[:, low::strides]
        return jnp.tanh(x)

    kinds = [kind for kind, *_ in steps]
    return apply, w, "crop" in kinds[: kinds.index("conv")]


def run_chain(seed):
    apply, w, cropped = random_chain(seed)
    # zero padding after a crop is a border that one kernel does not have
    fused = check(apply, w, image(1, 16, C), after=None if cropped else {"conv": 1})
    x = image(1, 23, C)
    assert gap(apply, w, fused, x) <= 1e-12


@pytest.mark.parametrize("seed", range(5))
def test_chain(seed):
    run_chain(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1300))
def test_more_chains(seed):
    run_chain(seed)


# Weights that vary over positions are tied to one size.
W = weights(
    a=(3, 3, C, C), one=(1, 1, C, C), v=(C,), u=(C,), norm=C, place=(6, 6, C), plane=(6, 6, 1),
    row=(6, 1, C), other=(1, 6, 6, C), tokens=(9, C), dense=(C, C),
)  # fmt: skip
X = functools.partial(image, 1, 6, 6, C)

POSITIONS = {
    "after a convolution": lambda w, x: conv(x, w["a"]) + w["v"] + w["place"],
    "before a convolution": lambda w, x: conv(x + w["place"], w["a"]) + w["v"],
    "between convolutions": lambda w, x: conv(conv(x, w["one"]) + w["place"], w["a"]) + w["v"],
    "before strides": lambda w, x: conv(x + w["place"], w["a"], 2, 1) + w["v"],
    "before a crop": lambda w, x: (x + w["place"])[:, 1:-1, 2:] + w["v"],
    "then norm": lambda w, x: norm(w, conv(x, w["a"]) + w["place"]),
    "before norm and a convolution": lambda w, x: conv(norm(w, x + w["place"]), w["a"]),
    "of rank four": lambda w, x: conv(x, w["a"]) + w["v"] - w["other"],
    "two": lambda w, x: conv(x + w["place"], w["a"]) + w["other"],
}


@pytest.mark.parametrize("name", POSITIONS)
def test_a_bias_for_every_position(name):
    def apply(w, x):
        return relu(POSITIONS[name](w, x))

    fused = check(apply, W, X(), products=0, shifts=1)
    assert fused.report.totals.kernels.get("conv", 0) == ("crop" not in name)
    assert gap(apply, W, fused, X(seed=3)) <= 1e-12


def test_a_bias_for_every_token():
    def apply(w, x):
        return relu(x @ w["dense"] + w["v"] + w["tokens"])

    check(apply, W, image(2, 9, C), after={"dot": 1}, shifts=1)


def test_a_bias_for_every_position_knows_one_size():
    def apply(w, x):
        place = jax.image.resize(w["place"], x.shape[1:], "bilinear")
        return relu(conv(x + place, w["a"]) + w["v"])

    fused = check(apply, W, X())
    x = image(1, 9, 8, C)
    found = apply_or_refuse(fused, x)
    if isinstance(found, str):
        assert "need other fused parameters" in found
    else:  # replayed as written, it needs none
        assert error(apply(W, x), found) <= 1e-12


def apply_or_refuse(fused, x):
    try:
        return fused.apply(fused.params, x)
    except ValueError as problem:
        return str(problem)


@pytest.mark.parametrize("name", ["plane", "row"])
def test_a_smaller_bias_for_every_position(name):
    def apply(w, x):
        return relu(conv(conv(x, w["one"]) + w[name], w["a"]) + w["v"])

    # with the channels written out it would be larger: whether that pays is a matter of cost
    check(apply, W, X())


def test_a_scale_for_every_position_stays():
    def apply(w, x):
        return relu(conv(conv(x, w["one"]) * w["place"] + w["v"], w["a"]))

    check(apply, W, X(), after={"conv": 2}, products=1)


def test_abstract_variables_have_abstract_maps():
    def apply(w, x):
        return relu(conv(x + w["v"], w["a"]) + w["u"])

    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), W)
    fused = repjax.fuse(apply, shapes, X())
    (border,) = leaves_called(fused.params, "bias_map")
    assert (border.shape, border.dtype) == ((3, 3, 1, C), jnp.float64)
    params = fused.fuse_params(W)
    assert error(apply(W, X()), fused.apply(params, X())) <= 1e-12
