"""A weight is zero where it is zero for all variables: not where it is small, or zero for some."""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from repjax import fuse
from tests.tracing.checks import check, image, leaves_called
from tests.tracing.parts import conv, weights

pytestmark = pytest.mark.usefixtures("x64")

C = 4
W = weights(a=(3, 3, C, C), one=(1, 1, C, C), v=(C,), u=(C,))
X = functools.partial(image, 1, 5, 5, C)


def bordered(shift):
    """A 1x1, a shift, zero padding, a 3x3: the shift may be dropped only where it is zero."""

    def apply(w, x):
        y = conv(x, w["one"]) + shift(w)
        return jnp.tanh(conv(jnp.pad(y, ((0, 0), (1, 1), (1, 1), (0, 0))), w["a"]) / 8)

    return apply


ZERO = {
    "a difference": lambda w: w["v"] - w["v"],
    "a sum and its turn": lambda w: (w["v"] + w["u"]) - (w["u"] + w["v"]),
    "a product with zero": lambda w: w["v"] * (w["u"] - w["u"]),
    "subtracted twice": lambda w: w["v"] * 3.0 - w["v"] - 2 * w["v"],
    "zeros": lambda w: np.zeros(C),
}


@pytest.mark.parametrize("name", ZERO)
def test_a_shift_that_is_zero_is_dropped(name):
    fused = check(bordered(ZERO[name]), W, X(), after={"conv": 1}, shifts=0)
    assert not leaves_called(fused.params, "bias_map")


# Each is small, or zero for some variables, but not zero.
NOT_ZERO = {
    "a small difference": lambda w: (w["v"] + 5e-11 * w["u"]) - w["v"],
    "a difference of large numbers": lambda w: (w["v"] * 1e11 + w["u"]) - w["v"] * 1e11,
    "a small product": lambda w: 1e-11 * w["v"],
    "a small constant": lambda w: np.full(C, 1e-10),
    "a tiny constant that grows": lambda w: 1e200 * (1e-200 * w["v"]),
    "zero at the variables": lambda w: w["v"] - np.asarray(W["v"]),
    "a square root of a square": lambda w: jnp.sqrt(w["v"] * w["v"]) - w["v"],
    "an absolute value": lambda w: jnp.abs(w["v"]) - w["v"],
    "a sign": lambda w: jnp.sign(w["v"]) - 1.0,
    "a maximum": lambda w: jnp.maximum(w["v"], 0.0) - w["v"],
    "a clipped value": lambda w: jnp.clip(w["v"], -2.0, 2.0) - w["v"],
    "a power": lambda w: (w["v"] ** 2) ** 0.5 - w["v"],
    "a rounded value": lambda w: jnp.round(w["v"]),
    "a choice": lambda w: jnp.where(w["v"] > 3.0, w["v"], 0.0),
    "a low power of ten": lambda w: (w["v"] - w["v"] * (1 - 1e-11)) * 3.0,
    "sums of different parts": lambda w: w["v"].sum() - w["v"][::-1].sum() + 1e-11 * w["u"],
    "one of the channels": lambda w: (jnp.asarray(w["v"]) - w["v"]).at[1].set(1e-9),
    "one of the variables": lambda w: w["v"] - jnp.concatenate([w["v"][:3], w["u"][3:]]),
}


@pytest.mark.parametrize("name", NOT_ZERO)
def test_a_shift_that_is_not_zero_is_kept(name):
    apply = bordered(NOT_ZERO[name])
    positive = {**W, "v": np.abs(W["v"]) + 0.5}
    negative = {**W, "v": -np.abs(W["v"]) - 3.0 * np.arange(C)}
    fused = fuse(apply, positive, X())
    tolerance = 1e-3 if "large" in name else 1e-12  # digits that are lost in the weights
    for w in (positive, W, negative):
        expected, found = apply(w, X()), fused.apply(fused.fuse_params(w), X())
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


def test_a_padding_value_that_is_nearly_the_shift():
    def apply(w, x):
        y = conv(x, w["one"]) + w["v"]
        y = jnp.pad(y - w["v"] * (1 - 5e-11), ((0, 0), (1, 1), (1, 1), (0, 0))) + w["v"]
        return jnp.tanh(conv(y, w["a"], padding="VALID") / 8)

    check(apply, W, X())
