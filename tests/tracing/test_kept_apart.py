"""What must not merge does not, and the report says why."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax import lax

from repjax import fuse
from tests.tracing.checks import check, image, linen, numbers

pytestmark = pytest.mark.usefixtures("x64")


def conv(x, k, strides=1, padding="SAME"):
    return lax.conv_general_dilated(
        x, k, (strides, strides), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


W = {
    "a": numbers(3, 3, 4, 4),
    "b": numbers(3, 3, 4, 4, seed=2),
    "one": numbers(1, 1, 4, 4, seed=3),
    "v": numbers(4, seed=4),
    "down": numbers(1, 1, 4, 1, seed=5),
    "wide": numbers(9, 1, 4, 4, seed=6),
    "high": numbers(1, 9, 4, 4, seed=7),
    "place": numbers(6, 6, 4, seed=8),
}


CASES = {
    "kernel at the border": (
        lambda w, x: jnp.tanh(conv(conv(x, w["a"]), w["b"])),
        {"conv": 2},
        "zero padding between two spatial kernels",
    ),
    "strides": (
        lambda w, x: jnp.tanh(conv(x, w["a"], 2)[:, :2, :2] + conv(x, w["one"])[:, :2, :2]),
        {"conv": 2},
        "strides differ",
    ),
    "fan-out": (
        lambda w, x: [jnp.tanh(y := conv(x, w["one"])), jnp.tanh(conv(y, w["a"])), jnp.sin(y)],
        {"conv": 2},
        "used by 3 consumers, 2 of them non-linear",
    ),
    "an output": (
        lambda w, x: [y := conv(x, w["one"]), jnp.tanh(conv(y, w["a"]))],
        {"conv": 2},
        "is an output of the program",
    ),
    "non-linear between": (
        lambda w, x: conv(jnp.tanh(conv(x, w["one"])), w["a"]),
        {"conv": 2},
        "not linear: tanh",
    ),
    "data scales": (
        lambda w, x: conv(conv(x, w["one"]) * x, w["one"]),
        {"conv": 2},
        "product of data",
    ),
    "a weight for every place": (
        lambda w, x: conv(conv(x, w["one"]) * w["place"], w["one"]),
        {"conv": 2},
        "a weight that varies over positions",
    ),
    "bottleneck": (
        lambda w, x: jnp.tanh(conv(conv(x, w["down"]), jnp.swapaxes(w["down"], 2, 3))),
        {"conv": 2},
        "cheaper apart",
    ),
    "cross of long kernels": (
        lambda w, x: jnp.tanh(conv(x, w["wide"]) + conv(x, w["high"])),
        {"conv": 2},
        "cheaper apart",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_kept_apart(name):
    apply, after, reason = CASES[name]
    fused = check(apply, W, image(1, 6, 6, 4), before=after, after=after)
    assert any(reason in given for given in fused.report.reasons)
    assert reason in str(fused.report)


def test_a_border_filled_with_the_bias_does_merge():
    def apply(w, x):
        y = conv(x, w["one"]) + w["v"]
        y = jnp.pad(y - w["v"], ((0, 0), (1, 1), (1, 1), (0, 0))) + w["v"]
        return jnp.tanh(conv(y, w["a"], padding="VALID"))

    check(apply, W, image(1, 6, 6, 4), before={"conv": 2}, after={"conv": 1})


def test_one_n_th_of_a_mean_is_not_folded_into_the_head():
    def apply(w, x):
        return jnp.tanh(x).mean((1, 2)) @ w["one"][0, 0]

    fused = check(apply, W, image(1, 6, 6, 4), after={"dot": 1})
    expected = apply(W, image(2, 9, 5, 4))
    assert jnp.allclose(fused.apply(fused.params, image(2, 9, 5, 4)), expected, rtol=1e-12)


def test_same_padding_with_strides_depends_on_the_size():
    def apply(w, x):
        return jnp.tanh(conv(x, w["a"], 2) + conv(x, w["one"], 2))

    even, odd = image(1, 8, 8, 4), image(1, 9, 9, 4)
    fused = check(apply, W, even, before={"conv": 2}, after={"conv": 1})
    check(apply, W, odd, before={"conv": 2}, after={"conv": 1})
    with pytest.raises(ValueError, match="need other fused parameters"):
        fused.apply(fused.params, odd)


def test_training_mode_fuses_the_rest_and_says_so():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            y = nn.Conv(4, (3, 3), name="a")(x) + nn.Conv(4, (1, 1), name="b")(x)
            return nn.relu(nn.BatchNorm(use_running_average=False, name="norm")(y))

    module, x = Net(), image(2, 6, 6, 4)

    def apply(variables, x):
        return module.apply(variables, x, mutable=["batch_stats"])

    fused = check(apply, linen(module, x), x, before={"conv": 2}, after={"conv": 1})
    assert "its statistics are computed from data" in fused.report.reasons


def test_cost_can_be_chosen():
    def apply(w, x):
        return jnp.tanh(conv(x, w["wide"]) + conv(x, w["high"]))

    x = image(1, 6, 6, 4)
    fused = fuse(apply, W, x, cost=lambda kernel: float(kernel.kind == "convolution"))
    assert fused.report.totals.kernels["conv"] == 1
    assert jnp.allclose(fused.apply(fused.params, x), apply(W, x), rtol=1e-12)


def test_nothing_narrower_than_16_bits_is_looked_through():
    def apply(w, x):
        y = conv(x, w["one"]).astype(jnp.float8_e4m3fn).astype(jnp.float64)
        return conv(y, w["one"])

    check(apply, W, image(1, 6, 6, 4), before={"conv": 2}, after={"conv": 2})


def test_errors_of_tracing_are_jax_own():
    def apply(w, x):
        return x if x.sum() > 0 else -x

    with pytest.raises(jax.errors.TracerBoolConversionError):
        fuse(apply, W, image(1, 6, 6, 4))


@pytest.mark.parametrize("cost", [float("nan"), -1.0, float("inf")])
def test_a_cost_that_is_no_price_is_refused(cost):
    with pytest.raises(ValueError, match="expected the price of writing one element"):
        fuse(lambda w, x: conv(x, w["one"]), W, image(1, 6, 6, 4), cost=cost)
