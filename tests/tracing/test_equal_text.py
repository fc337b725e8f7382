"""Equal text is not equal meaning: callbacks and derivatives of their own."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback

from repjax import fuse
from tests.tracing.checks import check, image, leaves_called, same_gradients
from tests.tracing.parts import conv, norm, weights

pytestmark = pytest.mark.usefixtures("x64_on_all_threads")

C = 4
W = weights(a=(3, 3, C, C), one=(1, 1, C, C), two=(1, 1, C, C), v=(C,), u=(C,), norm=C)
X = functools.partial(image, 1, 5, 5, C)


def on_host(function, x):
    return jax.pure_callback(function, jax.ShapeDtypeStruct(x.shape, x.dtype), x)


def once(function):
    """Another function of the same text."""
    return lambda x: function(np.asarray(x))


CALLBACKS = {
    "sine and cosine": (np.sin, np.cos),
    "closures of the same text": (once(np.sin), once(np.cos)),
    "partials": (functools.partial(np.multiply, 2.0), functools.partial(np.multiply, 3.0)),
}


@pytest.mark.parametrize("name", CALLBACKS)
def test_two_callbacks_are_two(name):
    one, two = CALLBACKS[name]

    def apply(w, x):
        y = conv(x, w["a"])
        return on_host(one, y) + 2 * on_host(two, y)

    check(apply, W, X())


def test_two_callbacks_of_weights_are_two():
    def apply(w, x):
        return conv(x, on_host(np.sin, w["a"])) + 2 * conv(x, on_host(np.cos, w["a"]))

    check(apply, W, X())


def test_host_callbacks_happen_as_often_as_before():
    seen = []

    def note(x):
        seen.append(x.shape)
        return np.asarray(x)

    def apply(w, x):
        y = conv(x, w["a"])
        spec = jax.ShapeDtypeStruct(y.shape, y.dtype)
        z = io_callback(note, spec, y) + io_callback(note, spec, y)
        jax.debug.callback(note, y)
        jax.debug.callback(note, y)
        return z + io_callback(note, spec, y, ordered=True)

    def times(run):
        seen.clear()
        run()
        jax.effects_barrier()
        return len(seen)

    fused = fuse(apply, W, X())
    assert times(lambda: apply(W, X())) == times(lambda: fused.apply(fused.params, X())) == 5
    assert times(lambda: jax.jit(fused.apply)(fused.params, X())) == 5


def test_nothing_is_called_back_while_fusing():
    seen = []

    def note(x):
        seen.append(x.shape)
        return np.asarray(x)

    def apply(w, x):
        y = io_callback(note, jax.ShapeDtypeStruct(x.shape, x.dtype), x)
        jax.debug.callback(note, y)
        return conv(y, w["a"])

    fuse(apply, W, X())
    jax.effects_barrier()
    assert not seen


def backward(scale):
    """The identity with a derivative of its own, by `custom_vjp`."""

    @jax.custom_vjp
    def function(x):
        return x * 1.0

    function.defvjp(lambda x: (function(x), None), lambda _, slope: (scale * slope,))
    return function


def forward(scale):
    """The same by `custom_jvp`."""

    @jax.custom_jvp
    def function(x):
        return jnp.sin(x)

    @function.defjvp
    def _(primals, tangents):
        return function(*primals), scale * tangents[0]

    return function


def rounded(straight):
    """Rounding, with a derivative of one (straight through) or of zero."""

    @jax.custom_jvp
    def function(x):
        return jnp.round(8 * x)

    @function.defjvp
    def _(primals, tangents):
        (slope,) = tangents
        return function(*primals), 8 * slope if straight else 0 * slope

    return function


DERIVATIVES = {
    "gradient reversal": (backward(1.0), backward(-1.0)),
    "custom_jvp": (forward(1.0), forward(-2.0)),
    "straight through": (rounded(True), rounded(False)),
}


@pytest.mark.parametrize("name", DERIVATIVES)
@pytest.mark.parametrize("place", ["data", "weights"])
def test_derivatives_of_equal_bodies_stay_different(name, place):
    one, two = DERIVATIVES[name]

    def apply(w, x):
        if place == "data":
            y = conv(x, w["a"])
            return one(y) + 2 * two(y) + x
        return conv(x, one(w["a"])) + 2 * conv(x, two(w["a"]))

    fused = check(apply, W, X())
    same_gradients(apply, W, fused, X())


def test_one_function_of_one_value_keeps_its_derivative():
    reverse = backward(-1.0)

    def apply(w, x):
        y = conv(x, w["a"])
        return reverse(y) + 2 * reverse(y), jnp.tanh(conv(reverse(x), w["one"]))

    check(apply, W, X(), gradients=True)


def test_arguments_that_are_not_differentiated_are_compared():
    @functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
    def power(n, x):
        return x * 1.0

    @power.defjvp
    def _(n, primals, tangents):
        return primals[0] * 1.0, n * tangents[0]

    def apply(w, x):
        y = conv(x, w["a"])
        return power(2, y) + power(3, y)

    check(apply, W, X(), gradients=True)


def test_equal_texts_of_equal_meaning_are_one():
    def apply(w, x):
        return jnp.tanh(conv(x, w["a"] * w["v"]) + w["u"]) + conv(x, w["a"] * w["v"])

    fused = check(apply, W, X())
    assert len(leaves_called(fused.params, "kernel")) == 1


def test_norms_of_equal_text_and_other_variables_are_two():
    def apply(w, x):
        y = conv(x, w["a"])
        return jnp.tanh(norm(w, y)), jnp.tanh(norm({"norm": w["norm"][::-1]}, y))

    w = {**W, "norm": tuple(np.abs(part) + 0.1 for part in W["norm"])}
    check(apply, w, X())
