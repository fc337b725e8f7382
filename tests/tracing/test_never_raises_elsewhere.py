"""Primitives without a rule, odd variables, odd outputs and symbolic sizes are replayed."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.extend import core
from jax.interpreters import mlir

import repjax
from tests.tracing.checks import check, error, gap, image, mostly_slow
from tests.tracing.parts import conv, norm, relu
from tests.tracing.test_never_raises import W, X, block, same

pytestmark = pytest.mark.usefixtures("x64")

SEVERAL = {
    "sort": lambda w, x: jnp.sort(conv(x, w["a"]), -1) + w["v"],
    "sort with keys": lambda w, x: lax.sort((conv(x, w["a"]), x), num_keys=1),
    "top_k": lambda w, x: lax.top_k(block(w, x), 2),
    "argmax": lambda w, x: (y := block(w, x)).argmax(-1) + y.argmin(3),
    "split": lambda w, x: lax.split(block(w, x), (1, 3), -1),
    "split of the batch": lambda w, x: lax.split(block(w, x), (1, 1), 0),
    "split of space": lambda w, x: [relu(y) for y in lax.split(block(w, x), (2, 4), 1)],
    "split of a weight": lambda w, x: [x[..., :2] * v for v in lax.split(w["v"], (2, 2), 0)],
    "fft": lambda w, x: jnp.fft.ifft2(jnp.fft.fft2(conv(x, w["a"]), axes=(1, 2))).real + x,
    "real fft": lambda w, x: jnp.fft.irfft(jnp.fft.rfft(conv(x, w["a"])) * (1 + 2j)),
    "cumulative sum": lambda w, x: jnp.cumsum(conv(x, w["a"]) + w["v"], 1) + x,
    "qr": lambda w, x: jnp.linalg.qr(conv(x, w["one"]))[1],
    "svd of a weight": lambda w, x: x @ jnp.linalg.svd(w["square"])[0] + x,
    "solve with a weight": lambda w, x: jnp.linalg.solve(w["square"], x[0, 0].T),
    "gather by data": lambda w, x: conv(x, w["a"])[..., x[0, 0, 0].astype(int) % 4] + w["v"],
    "dynamic slice": lambda w, x: lax.dynamic_slice_in_dim(
        conv(x, w["a"]), x[0, 0, 0, 0].astype(int) % 2, 2, 3
    ),
    "dynamic update": lambda w, x: lax.dynamic_update_slice(
        conv(x, w["a"]), x[:, :2], (0, x[0, 0, 0, 0].astype(int) % 3, 0, 0)
    ),
    "scatter": lambda w, x: conv(x, w["a"]).at[:, 1, ::2].add(x[:, 0, ::2]).at[0].max(w["v"]),
    "roll and tile": lambda w, x: jnp.tile(jnp.roll(conv(x, w["a"]), 1, 1), (1, 1, 2, 1)) + w["v"],
    "repeat channels": lambda w, x: jnp.repeat(conv(x, w["a"]) + w["v"], 2, -1),
    "maximum pool": lambda w, x: lax.reduce_window(
        conv(x, w["a"]) + w["v"], -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "SAME"
    ),
    "dilated pool": lambda w, x: lax.reduce_window(
        conv(x, w["one"]), 0.0, lax.add, (1, 2, 2, 1), (1, 1, 1, 1), "SAME",
        base_dilation=(1, 2, 1, 1), window_dilation=(1, 1, 2, 1),
    ),
    "pool over channels": lambda w, x: lax.reduce_window(
        conv(x, w["one"]), 0.0, lax.add, (1, 1, 1, 2), (1, 1, 1, 2), "VALID"
    ) + w["half"],
    "pool over the batch": lambda w, x: lax.reduce_window(
        conv(x, w["one"]), 0.0, lax.add, (2, 1, 1, 1), (1, 1, 1, 1), "VALID"
    ) + w["v"],
    "sum over channels": lambda w, x: conv(x, w["a"]).sum(-1, keepdims=True) * w["v"],
    "sum over the batch": lambda w, x: (conv(x, w["a"]) + w["v"]).sum(0),
    "resize": lambda w, x: jax.image.resize(conv(x, w["a"]), (2, 9, 9, 4), "bilinear") + w["v"],
    "softmax": lambda w, x: jax.nn.softmax(block(w, x)) @ w["dense"],
    "layer norm": lambda w, x: jax.nn.standardize(conv(x, w["a"])) * w["v"] + w["u"],
    "attention": lambda w, x: jnp.einsum(
        "nqc,nkc->nqk", y := (x @ w["square"]).reshape(2, 36, 4), y
    ),
    "barrier": lambda w, x: lax.optimization_barrier((conv(x, w["a"]), w["v"])),
    "stopped gradient": lambda w, x: lax.stop_gradient(conv(x, w["a"])) + conv(x, w["b"]),
    "half precision": lambda w, x: conv(x.astype(jnp.bfloat16), w["a"].astype(jnp.bfloat16)),
    "one hot": lambda w, x: jnp.eye(4)[x[..., 0].astype(int) % 4] @ w["square"] + w["v"],
    "bits": lambda w, x: lax.bitcast_convert_type(conv(x, w["a"]), jnp.int64),
    "reduced precision": lambda w, x: lax.reduce_precision(conv(x, w["a"]), 8, 7) + w["v"],
    "odd type of sum": lambda w, x: lax.dot_general(
        x.astype(jnp.float32), w["square"].astype(jnp.float32), (((3,), (0,)), ((), ())),
        preferred_element_type=jnp.float64,
    ),
    "named": lambda w, x: checkpoint_name(conv(x, w["a"]), "a") + w["v"],
}  # fmt: skip


ALWAYS = (
    *("sort with keys", "top_k", "split of the batch", "split of space", "gather by data"),
    *("dynamic slice", "scatter", "maximum pool", "dilated pool", "pool over channels"),
    *("sum over the batch", "qr", "barrier", "half precision", "odd type of sum", "named"),
)


@pytest.mark.parametrize("name", mostly_slow(SEVERAL, *ALWAYS))
def test_no_rule(name):
    same(SEVERAL[name], W, X())


def primitive(name, several=False):
    """A primitive of a user: twice its operand, perhaps also its negative."""
    made = core.Primitive(name)
    made.multiple_results = several

    def run(x):
        return [2 * x, -x] if several else 2 * x

    made.def_impl(run)
    made.def_abstract_eval(lambda x: [x, x] if several else x)
    mlir.register_lowering(made, mlir.lower_fun(run, multiple_results=several))
    return made


@pytest.mark.parametrize("several", [False, True])
def test_primitives_that_nobody_knows(several):
    twice = primitive(f"twice_{several}", several)

    def apply(w, x):
        y = jax.tree.leaves(twice.bind(conv(x, w["a"]) + x))
        k = jax.tree.leaves(twice.bind(w["one"]))
        return [conv(y[0], k[-1]) + conv(y[-1], w["two"]), y]

    same(apply, W, X())


def test_a_primitive_that_is_named_like_a_known_one():
    add = primitive("add")

    def apply(w, x):
        return conv(add.bind(conv(x, w["one"])), w["two"])

    same(apply, W, X())


OUTPUTS = {
    "an input": lambda w, x: x,
    "a weight": lambda w, x: w["v"],
    "a computed weight": lambda w, x: w["v"] + w["u"],
    "a constant": lambda w, x: jnp.arange(3.0),
    "a number": lambda w, x: 7,
    "nothing": lambda w, x: None,
    "no array at all": lambda w, x: {"a": [], "b": ()},
    "the same twice": lambda w, x: (y := conv(x, w["a"]) + x, y),
    "an input, a weight, data": lambda w, x: {"x": x, "k": w["a"], "y": conv(x, w["a"])},
    "a middle value": lambda w, x: [y := conv(x, w["a"]), norm(w, y)],
    "a branch that nobody reads": lambda w, x: (conv(x, w["a"]) + w["v"], conv(x, w["b"]))[0],
    "a kernel that was scaled": lambda w, x: (k := w["a"] * w["v"], conv(x, k)),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs(name):
    fused = repjax.fuse(OUTPUTS[name], W, X())
    expected, found = OUTPUTS[name](W, X()), fused.apply(fused.params, X())
    assert jax.tree.structure(expected) == jax.tree.structure(found)
    for one, two in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        assert np.allclose(one, two, rtol=1e-12, atol=1e-12)
    assert str(fused.report)


@pytest.mark.parametrize("variables", [{}, (), None, {"empty": {}}, {"rate": "fast"}])
def test_no_variables(variables):
    k = image(3, 3, 4, 4)
    fused = check(lambda v, x: jnp.tanh(conv(x, k) + conv(x, k[1:2, 1:2])), variables, X())
    assert not jax.tree.leaves(fused.params)  # a constant is not a parameter


def test_no_inputs():
    same(lambda w: conv(X(), w["a"]) + conv(X(), w["one"]), W)


def test_no_use_of_the_variables():
    fused = repjax.fuse(lambda w, x: jnp.tanh(x), W, X())
    assert error(jnp.tanh(X()), fused.apply(fused.params, X())) == 0


def test_the_variables_are_also_an_input():
    same(lambda w, x, k: conv(x, w["a"]) + conv(x, k), W, X(), W["a"])


SYMBOLIC = ["b, 8, 8, 4", "2, h, 8, 4", "2, h, w, 4", "b, h, w, 4"]


@pytest.mark.parametrize("shape", mostly_slow(SYMBOLIC, "2, h, 8, 4", "b, h, w, 4"))
def test_symbolic_sizes(shape):
    def apply(w, x):
        y = relu(norm(w, conv(x, w["a"], padding=1)) + conv(x, w["one"], padding=0) + x)
        y = jnp.concatenate([y, conv(y, w["b"], padding=1) + w["u"]], -1)
        return y.mean((1, 2)) @ jnp.concatenate([w["dense"], w["dense"]])

    spec = jax.ShapeDtypeStruct(jax.export.symbolic_shape(shape), jnp.float64)
    fused = repjax.fuse(apply, W, spec)
    x = image(2, 8, 8, 4)
    assert gap(apply, W, fused, x) <= 1e-12
    params = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), fused.params)
    exported = jax.export.export(jax.jit(fused.apply))(params, spec)
    assert error(apply(W, x), exported.call(fused.params, x)) <= 1e-12
