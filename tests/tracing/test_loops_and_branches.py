"""Loops, branches and programs inside programs: replayed, with what is fusable in them fused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from tests.tracing.checks import mostly_slow
from tests.tracing.parts import conv, norm, relu
from tests.tracing.test_never_raises import W, X, same

pytestmark = pytest.mark.usefixtures("x64")

LOOPS = {
    "scan over weights": lambda w, x: lax.scan(
        lambda y, k: (relu(conv(y, k) + y), y.mean()), x, jnp.stack([w["a"], w["b"]])
    ),
    "scan over the batch": lambda w, x: lax.scan(
        lambda total, y: (total + y.sum(), conv(y[None], w["a"]) + y), 0.0, x
    ),
    "scan that carries a weight": lambda w, x: lax.scan(
        lambda k, y: (k * 0.5, conv(y[None], k) + conv(y[None], w["one"])), w["a"], x
    ),
    "while": lambda w, x: lax.while_loop(
        lambda carry: carry[0] < 3,
        lambda carry: (carry[0] + 1, jnp.tanh(conv(carry[1], w["a"]) + carry[1])),
        (0, x),
    ),
    "fori": lambda w, x: lax.fori_loop(0, 3, lambda i, y: jnp.tanh(y @ w["square"] + i), x),
    "cond": lambda w, x: lax.cond(
        x.sum() > 0, lambda: conv(x, w["a"]) + x, lambda: conv(x, w["one"])
    ),
    "switch on an input": lambda w, x: lax.switch(
        x[0, 0, 0, 0].astype(int), [lambda y: y @ w["square"], relu, jnp.sin], conv(x, w["a"])
    ),
    "cond on a weight": lambda w, x: lax.cond(
        w["scalar"] > 0, lambda y: norm(w, y), lambda y: y, conv(x, w["a"])
    ),
    "map": lambda w, x: lax.map(lambda y: norm(w, conv(y[None], w["a"])), x),
    "associative scan": lambda w, x: lax.associative_scan(jnp.add, conv(x, w["a"]), axis=1),
    "nested jit": lambda w, x: jax.jit(lambda y: jax.jit(norm)(w, conv(y, w["a"])))(x),
    "gradient inside": lambda w, x: jax.grad(lambda y: jnp.sum(conv(y, w["a"]) ** 2))(x),
    "hessian product inside": lambda w, x: jax.jvp(
        jax.grad(lambda y: jnp.sum(jnp.tanh(conv(y, w["a"]) + y))), (x,), (x,)
    ),
    "linear solve": lambda w, x: jax.scipy.sparse.linalg.cg(
        lambda y: y @ (w["square"] @ w["square"].T + jnp.eye(4)), x[0, 0], maxiter=1
    )[0],
}  # fmt: skip


ALWAYS = (
    *("scan over weights", "scan that carries a weight", "while", "switch on an input"),
    *("cond on a weight", "nested jit", "gradient inside"),
)


@pytest.mark.parametrize("name", mostly_slow(LOOPS, *ALWAYS))
def test_loops_and_branches(name):
    same(LOOPS[name], W, X())
