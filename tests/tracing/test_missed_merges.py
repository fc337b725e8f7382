"""Merges that a person sees: norms behind sums, stacks, means and cuts; pools before a 1x1."""

from __future__ import annotations

import functools

import jax.numpy as jnp
import pytest

import repjax
from tests.tracing.checks import check, counts, gap, image, leaves_called
from tests.tracing.parts import conv, keras_norm, norm, pool, relu, weights
from tests.tracing.reading import work

pytestmark = pytest.mark.usefixtures("x64")

C = 8
W = weights(
    dw3=(3, 3, 1, C), dw5=(5, 5, 1, C), dw7=(3, 3, 1, C), pw3=(1, 1, C, C), pw5=(1, 1, C, C),
    a=(3, 3, C, C), b=(3, 3, C, C), one=(1, 1, C, C), v=(C,), u=(C,), head=(C, 5), top=(5,),
    wide=(1, 1, C, 4 * C), narrow=(1, 1, C, 2), norm=C, n3=C, n5=C, both=2 * C, place=(6, 6, 1),
)  # fmt: skip
X = functools.partial(image, 1, 6, 6, C)
LARGE = functools.partial(image, 1, 12, 12, C)  # where 3x3 twice is cheaper than 5x5


def separable(w, x, size):
    y = conv(conv(x, w[f"dw{size}"], groups=C), w[f"pw{size}"])
    return norm(w, y, f"n{size}")


# One 3x3 instead would have twice the multiply-accumulates of the two pairs, so all four
# convolutions stay, with the norms inside the 1x1 and one shift.
def test_a_sum_of_two_normed_separable_branches():
    def apply(w, x):
        return relu(separable(w, x, 3) + separable(w, x, 5))

    check(apply, W, X(), before={"conv": 4}, after={"conv": 4}, products=0, shifts=1)


def test_a_sum_of_two_normed_separable_branches_of_different_inputs():
    def apply(w, x, z):
        return relu(separable(w, x, 3) + separable(w, z, 5))

    fused = check(apply, W, X(), X(seed=5), after={"conv": 4}, products=0, shifts=1)
    assert fused.report.totals.merged


def test_a_cell_of_separable_branches_and_an_identity():
    def apply(w, x):
        y = relu(x)
        return relu(separable(w, y, 3) + separable(w, relu(-x), 5) + y)

    check(apply, W, X(), after={"conv": 4}, products=0, shifts=1)


# A 3x3 after a zero-padded 3x3 would be a 5x5 (if it were legal): two convolutions stay.
@pytest.mark.parametrize("form", [norm, keras_norm])
@pytest.mark.parametrize("padding", ["VALID", "pointwise"])
def test_a_residual_sum_then_norm_then_an_unpadded_convolution(form, padding):
    def apply(w, x, z):
        y = form(w, conv(relu(z), w["a"]) + x)
        y = conv(y, w["one"]) if padding == "pointwise" else conv(y, w["b"], padding="VALID")
        return jnp.tanh(y)

    check(apply, W, X(), X(seed=2), products=0, shifts=1)


def test_a_residual_sum_with_two_uses_keeps_one_norm_for_each():
    def apply(w, x, z):
        y = conv(z, w["a"]) + x
        return y, relu(conv(keras_norm(w, y), w["b"], padding="VALID"))

    check(apply, W, X(), X(seed=2), after={"conv": 2}, products=0, shifts=1)


def test_norm_after_a_stack_of_different_inputs():
    def apply(w, x, z):
        return relu(norm(w, jnp.concatenate([conv(x, w["a"]), conv(z, w["b"])], -1), "both"))

    check(apply, W, X(), X(seed=2), after={"conv": 2}, products=0)


def test_norm_after_a_stack_of_which_one_part_cannot_take_it():
    def apply(w, x, z):
        return relu(norm(w, jnp.concatenate([conv(x, w["a"]), jnp.sin(z)], -1), "both"))

    # half of the scale goes into the convolution, the other half is left: 1 x 6 x 6 x C of it
    fused = check(apply, W, X(), X(seed=2), after={"conv": 1}, products=1)
    totals = fused.report.totals
    assert totals.macs_after < totals.macs_before


def test_a_dense_net():
    def apply(w, x):
        for name in ("n3", "n5"):
            y = relu(norm(w, x[..., -C:], name))
            x = jnp.concatenate([x, conv(y, w["a"])], -1)
        return x

    check(apply, W, X(), after={"conv": 2}, products=2)  # of data that no weight produced


def test_norm_before_a_global_mean_and_a_dense_layer():
    def apply(w, x):
        return norm(w, jnp.tanh(x)).mean((1, 2)) @ w["head"] + w["top"]

    fused = check(apply, W, X(), after={"dot": 1}, products=0, shifts=1)
    x = image(2, 9, 5, C)  # 1/N stays out of the weights, so the size may be another one
    assert gap(apply, W, fused, x) <= 1e-12


def test_norm_before_a_global_pool_and_a_dense_layer():
    def apply(w, x):
        y = pool(keras_norm(w, jnp.tanh(x)), 6, 6)
        return y.reshape(1, C) @ w["head"]

    found = check(apply, W, X(), products=0, shifts=1)
    assert "kernel" in str(found.params)


def test_a_pointwise_convolution_before_a_global_mean_comes_after_it():
    def apply(w, x):
        return (conv(jnp.tanh(x), w["one"]) + w["v"]).mean((1, 2)) @ w["head"]

    check(apply, W, X(), before={"conv": 1, "dot": 1}, after={"dot": 1}, shifts=1)


@pytest.mark.parametrize("form", [norm, keras_norm])
def test_norm_before_a_bias_free_pointwise_convolution_that_widens(form):
    def apply(w, x):
        return relu(conv(form(w, jnp.sin(x)), w["wide"]))

    fused = check(apply, W, X(), after={"conv": 1}, products=0, shifts=1)
    assert leaves_called(fused.params, "kernel")[0].shape == (1, 1, C, 4 * C)


def test_norm_before_two_convolutions_goes_into_both():
    def apply(w, x):
        y = keras_norm(w, jnp.sin(x))
        return relu(conv(y, w["one"])), jnp.tanh(conv(y, w["pw3"]))

    check(apply, W, X(), after={"conv": 2}, products=0)


def test_norm_that_is_read_as_it_is_stays():
    def apply(w, x):
        y = norm(w, jnp.sin(x))
        return relu(y), relu(conv(y, w["wide"]))

    check(apply, W, X(), after={"conv": 1}, products=1)


POOLS = {
    "2x2": (2, 2, "VALID"),
    "3x3 with strides": (3, 2, "VALID"),
    "3x3 with strides and padding": (3, 2, 1),
}


# Pool first: the 1x1 is carried out on a quarter of the places, with its own parameters. One
# 2x2 convolution would have the multiply-accumulates of the 1x1 and four times its parameters.
@pytest.mark.parametrize("bias", [False, True], ids=["without bias", "with bias"])
@pytest.mark.parametrize("name", POOLS)
def test_a_pointwise_convolution_before_an_average_pool_comes_after_it(name, bias):
    size, strides, padding = POOLS[name]

    def apply(w, x):
        y = conv(x, w["one"])
        return relu(pool(y + w["v"] if bias else y, size, strides, padding))

    both = {"conv": 1, "pool": 1}
    x = image(1, 8, 8, C)
    fused = check(apply, W, x, before=both, after=both, gradients=bias and padding == 1)
    one, two = (work(f, p, x) for f, p in ((apply, W), (fused.apply, fused.params)))
    assert two.outputs[0][1] == pool(x, size, strides, padding).shape[1] < one.outputs[0][1]
    assert leaves_called(fused.params, "kernel")[0].shape == (1, 1, C, C)
    maps = leaves_called(fused.params, "bias_map")
    # the bias is there as often as the pool's window meets the image
    assert len(maps) == (bias and padding == 1)
    assert len(leaves_called(fused.params, "bias")) == (bias and padding != 1)


def test_norm_before_a_pooled_transition_comes_after_the_pool():
    def apply(w, x):
        return relu(pool(norm(w, conv(relu(x), w["one"]))))

    fused = check(apply, W, X(), after={"conv": 1, "pool": 1}, products=0, shifts=1)
    assert work(fused.apply, fused.params, X()).outputs[0][1] == 3


def test_a_dense_pool_of_more_channels_stays_behind():
    def apply(w, x):
        return relu(pool(conv(x, w["narrow"]), 3, 1))

    # pooled first, nine sums for each of 8 channels instead of 2
    fused = check(apply, W, X())
    assert fused.report.totals.macs_after <= fused.report.totals.macs_before


def test_a_padded_pool_after_a_padded_spatial_kernel_stays():
    def apply(w, x):
        return relu(pool(conv(x, w["a"]), 3, 1, 1))

    both = {"conv": 1, "pool": 1}
    check(apply, W, X(), before=both, after=both)


def swap(x):
    return jnp.concatenate([x[..., C // 2 :], x[..., : C // 2]], -1)


FANS = {
    "of multiples": lambda w, x: (y := swap(conv(x, w["a"]))) * 3.0 - 2 * y,
    "of a chain and a shortcut": lambda w, x: (y := swap(conv(x, w["a"]))) + conv(y, w["one"]),
    "of two permutations": lambda w, x: swap(y := swap(conv(x, w["a"]))) + y,
    "of a norm": lambda w, x: norm(w, y := swap(conv(x, w["a"]) + w["v"])) + y,
}


@pytest.mark.parametrize("name", FANS)
def test_a_permutation_written_as_a_stack_under_a_fan_out(name):
    def apply(w, x):
        return jnp.tanh(FANS[name](w, x))

    check(apply, W, X(), after={"conv": 1}, products=0, gone=["concatenate"])


def test_a_bias_behind_a_cut_goes_into_the_next_convolution():
    def apply(w, x):
        y = conv(x, w["a"]) + w["v"]
        return relu(conv(y, w["b"], padding="VALID") + w["u"])

    check(apply, W, LARGE(), before={"conv": 2}, after={"conv": 2}, shifts=1)


def test_a_bias_behind_a_cut_goes_into_both_of_the_next_convolutions():
    def apply(w, x):
        y = norm(w, conv(x, w["a"]))
        one, two = conv(y, w["b"], padding="VALID") + w["u"], conv(y, w["one"]) + w["v"]
        return relu(one), jnp.tanh(two)

    check(apply, W, LARGE(), after={"conv": 3}, products=0, shifts=2)


def test_a_bias_before_a_non_linearity_stays():
    def apply(w, x):
        y = relu(conv(x, w["a"]) + w["v"])
        return conv(y, w["b"], padding="VALID") + w["u"]

    check(apply, W, LARGE(), after={"conv": 2}, shifts=2)


def test_what_cannot_be_merged_is_as_it_was():
    def apply(w, x):
        return relu(conv(relu(x) * w["place"] + w["u"], w["a"]))

    fused = repjax.fuse(apply, W, X())
    assert counts(fused.apply, fused.params, X()) == {"conv": 1}
    assert work(fused.apply, fused.params, X()).products == 1
