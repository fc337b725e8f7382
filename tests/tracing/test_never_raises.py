"""Whatever JAX can trace, `fuse` takes: what it cannot merge, it replays."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import pytest
from jax import lax

import repjax
from tests.tracing.checks import check, counts, error, image, mostly_slow
from tests.tracing.parts import conv, norm, relu, weights

pytestmark = pytest.mark.usefixtures("x64")

X = functools.partial(image, 2, 6, 6, 4)
W = weights(
    a=(3, 3, 4, 4), b=(3, 3, 4, 4), one=(1, 1, 4, 4), two=(1, 1, 4, 4), v=(4,), u=(4,),
    dense=(4, 5), square=(4, 4), norm=4, scalar=(), half=(2,), place=(6, 6, 4), row=(6, 1, 1),
)  # fmt: skip


def same(apply, variables, *inputs):
    """The same values, whatever was merged."""
    fused = repjax.fuse(apply, variables, *inputs)
    expected = apply(variables, *inputs)
    assert error(expected, fused.apply(fused.params, *inputs)) <= 1e-12
    assert str(fused.report)
    return fused


def block(w, x):
    return norm(w, conv(x, w["a"])) + conv(x, w["one"]) + x


def swap(x):
    return jnp.concatenate([x[1:], x[:1]])


# The batch axis may be sliced, strided, padded, joined, reversed like any other: a convolution
# treats every example alike, so what is merged on either side stays merged.
BATCH = {
    "slice": (lambda w, x: jnp.tanh(conv(x[:1], w["a"]) + x[:1]), {"conv": 1}),
    "slices of a result": (
        lambda w, x: (y := block(w, x))[:1] - y[1:],
        {"conv": 1},
    ),
    "slice after": (lambda w, x: jnp.tanh(conv(x, w["a"])[:1] + x[:1]), {"conv": 1}),
    "slice between": (lambda w, x: jnp.tanh(conv(conv(x, w["a"])[1:], w["one"])), {"conv": 2}),
    "stride": (lambda w, x: jnp.tanh(block(w, x[::2])), {"conv": 1}),
    "stride after": (lambda w, x: jnp.tanh(block(w, x)[::2]), {"conv": 1}),
    "pad": (
        lambda w, x: jnp.tanh(conv(jnp.pad(x, ((0, 1), (0, 0), (0, 0), (0, 0))), w["a"])),
        {"conv": 1},
    ),
    "pad after a bias": (
        lambda w, x: jnp.tanh(
            conv(jnp.pad(conv(x, w["one"]) + w["v"], ((1, 0), *[(0, 0)] * 3)), w["a"])
        ),
        None,
    ),
    "interior padding": (
        lambda w, x: jnp.tanh(lax.pad(block(w, x), 0.0, [(0, 0, 1), *[(0, 0, 0)] * 3])),
        {"conv": 1},
    ),
    "concatenate": (lambda w, x: jnp.tanh(block(w, jnp.concatenate([x, 2 * x]))), {"conv": 1}),
    "concatenate after": (
        lambda w, x: jnp.tanh(jnp.concatenate([conv(x, w["a"]), conv(-x, w["b"])])),
        {"conv": 2},
    ),
    "swapped halves": (lambda w, x: jnp.tanh(swap(conv(x, w["a"])) + swap(x)), {"conv": 1}),
    "swapped halves and a vector": (lambda w, x: jnp.tanh(swap(x) - w["v"]), {}),
    "swapped differences and a vector": (
        lambda w, x: jnp.tanh(jnp.concatenate([x[:1] - x[1:], x[:1]]) * w["v"] + w["u"]),
        {},
    ),
    "reversed": (lambda w, x: jnp.tanh(conv(x, w["a"])[::-1] + x), {"conv": 1}),
    "crop of everything": (lambda w, x: jnp.tanh(block(w, x)[:1, 1:, :-2, 1:3]), {"conv": 1}),
    "tokens": (lambda w, x: jnp.tanh((x[:1] @ w["dense"])[:, 1:] + w["dense"][0]), {"dot": 1}),
}


@pytest.mark.parametrize("name", BATCH)
def test_batch(name):
    apply, after = BATCH[name]
    before = counts(apply, W, X())
    fused = check(apply, W, X())
    found = counts(fused.apply, fused.params, X())
    assert all(number <= before.get(kind, 0) for kind, number in found.items())
    if after is not None:
        assert found == after


def valid(x, k):
    return conv(x, k, padding="VALID")


# Nodes that differ only in high padding are different nodes.
CROPS = {
    "high": lambda w, x: valid(x, w["a"]) + conv(x, w["one"])[:, :-2, :-2],
    "low": lambda w, x: valid(x, w["a"]) + conv(x, w["one"])[:, 2:, 2:],
    "both": lambda w, x: valid(x, w["a"]) + conv(x, w["one"])[:, 1:-1, 1:-1],
    "mixed": lambda w, x: valid(x, w["a"]) + conv(x, w["one"])[:, 2:, :-2],
    "of the input": lambda w, x: valid(x, w["a"]) + conv(x[:, :-2, :-2], w["one"]),
    "and identity": lambda w, x: valid(x, w["a"]) + x[:, :-2, 2:],
    "two": lambda w, x: valid(x, w["a"]) + (x @ w["square"])[:, :-2, :-2] + x[:, 2:, 2:],
}


@pytest.mark.parametrize("name", mostly_slow(CROPS, "high", "mixed", "of the input", "two"))
@pytest.mark.parametrize("joined", [False, True], ids=["sum", "concatenate"])
def test_crops(name, joined):
    def apply(w, x):
        y = CROPS[name](w, x)
        if joined:
            return jnp.tanh(jnp.concatenate([y, valid(x, w["b"]), x[:, :-2, :-2]], -1))
        return jnp.tanh(y)

    # stacked with the identity as one convolution it would have more multiply-accumulates
    after = None if joined else {"conv": 1}
    check(apply, W, X(), after=after)


def test_the_same_crop_from_both_ends_of_one_convolution():
    def apply(w, x):
        y = conv(x, w["one"])
        return jnp.tanh(y[:, :-2, :-2] - y[:, 2:, 2:]) + jnp.sin(y[:, :-2, :-2])

    check(apply, W, X())


RANKS = {
    "a vector as a scale": lambda w, x: conv(x, w["a"]) * w["v"] + w["u"],
    "a scalar": lambda w, x: conv(x, w["a"]) * w["scalar"] + w["scalar"],
    "scalar over data": lambda w, x: conv(x, w["a"]) / w["scalar"] - w["scalar"],
    "weight minus data": lambda w, x: w["v"] - conv(x, w["a"]),
    "weight over data": lambda w, x: w["v"] / (2 + jnp.tanh(conv(x, w["a"]))),
    "a row": lambda w, x: conv(x, w["a"]) + w["row"],
    "a row times data": lambda w, x: conv(conv(x, w["a"]) * w["row"], w["one"]),
    "a place without the batch": lambda w, x: conv(x, w["a"]) + w["place"],
    "lower rank without broadcasting first": lambda w, x: lax.add(
        conv(x, w["a"]), lax.broadcast_in_dim(w["v"], (2, 6, 6, 4), (3,))
    ),
    "lower rank for every example": lambda w, x: jax.vmap(
        lambda image: jnp.tanh(image @ w["square"]) + w["v"]
    )(x),
    "data of lower rank": lambda w, x: conv(x, w["a"]) + x.mean((0, 1, 2)),
    "data of one channel": lambda w, x: conv(x, w["a"]) * x[..., :1] + x[..., :1],
    "a scalar of the data": lambda w, x: conv(x, w["a"]) * x.max(),
    "one example times a vector": lambda w, x: x[0, 0, 0] * w["v"] + w["u"],
    "outer product": lambda w, x: jnp.outer(w["v"], x[0, 0, 0]),
    "vector times matrix": lambda w, x: (w["v"] @ w["square"]) * x,
    "dot of vectors": lambda w, x: jnp.dot(x[0, 0, 0], w["v"]),
    "weight as the left of a product": lambda w, x: jnp.einsum("cd,nhwd->nhwc", w["square"], x),
    "contraction of two axes": lambda w, x: jnp.einsum("nhwc,hwc->n", x, w["place"]),
    "product of batches": lambda w, x: jnp.einsum("nhwc,nhvc->nhwv", x, x @ w["square"]),
    "kernel from data": lambda w, x: conv(x, w["a"] * x.mean()),
    "data as a kernel": lambda w, x: conv(w["place"][None], x[:1, :3, :3].transpose(1, 2, 0, 3)
                                          .repeat(4, 2)),
    "grouped over the batch": lambda w, x: lax.conv_general_dilated(
        x, w["one"].repeat(2, -1), (1, 1), "SAME", batch_group_count=2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    ),
}  # fmt: skip


ALWAYS = (
    *("a scalar", "weight over data", "a row times data", "data of lower rank"),
    *("lower rank without broadcasting first", "lower rank for every example", "outer product"),
    *("vector times matrix", "weight as the left of a product", "kernel from data"),
    *("data as a kernel", "grouped over the batch"),
)


@pytest.mark.parametrize("name", mostly_slow(RANKS, *ALWAYS))
def test_ranks(name):
    same(RANKS[name], W, X())


def test_integers_booleans_complex_numbers_and_keys():
    def apply(w, batch):
        y = conv(batch["image"].astype(jnp.float64) / 255, w["a"])
        y = jnp.where(batch["mask"], y, w["v"])
        picked = w["dense"][batch["index"]]
        z = batch["wave"] * (w["v"] + 1j) + batch["wave"]
        noise = jax.random.normal(batch["key"], (2, 4)) @ w["dense"]
        bits = lax.shift_left(batch["index"], 2) | 1
        return (
            y,
            picked,
            z,
            noise,
            bits,
            batch["mask"] & True,
            batch["key"],
            jnp.asarray(batch["step"] + 1),
        )

    batch = {
        "image": jnp.arange(2 * 6 * 6 * 4, dtype=jnp.uint8).reshape(2, 6, 6, 4),
        "mask": jnp.broadcast_to(jnp.arange(4) % 2 == 0, (2, 6, 6, 4)),
        "index": jnp.array([1, 3]),
        "wave": jnp.asarray(image(3, 4) + 1j),
        "key": jax.random.key(0),
        "step": 3,
    }
    same(apply, W, batch)


def test_complex_and_integer_weights():
    def apply(w, x):
        y = x @ w["square"] * w["count"]
        return y + lax.complex(y, y) @ w["phase"], jnp.where(w["flag"], y, -y), x // w["count"]

    w = {**W, "phase": image(4, 4) + 2j, "count": jnp.arange(1, 5), "flag": jnp.array(True)}
    same(apply, w, X())


@pytest.mark.parametrize("shape", [(0, 6, 6, 4), (2, 0, 6, 4), (2, 6, 0, 4)])
def test_arrays_of_size_zero(shape):
    def apply(w, x):
        return relu(norm(w, conv(x, w["a"], padding=1)) + x), x @ w["dense"] + w["dense"][0]

    same(apply, W, image(*shape))


def test_channels_of_size_zero():
    def apply(w, x):
        y = conv(x, w["a"])
        return conv(y[..., :0], w["none"]), jnp.concatenate([y, y[..., :0]], -1) + w["v"]

    same(apply, {**W, "none": jnp.zeros((3, 3, 0, 4))}, X())
