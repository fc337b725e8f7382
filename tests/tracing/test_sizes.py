"""Other sizes: whole-map pools, symbolic sizes, and parameters that do not fit."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repjax import fuse
from tests.tracing.checks import check, counts, error, gap, image
from tests.tracing.parts import conv, norm, pool, relu, weights

pytestmark = pytest.mark.usefixtures("x64")

C = 4
W = weights(
    a=(3, 3, C, C), b=(3, 3, C, C), one=(1, 1, C, C), v=(C,), norm=C, n1=C, head=(C, 5), top=(5,),
    tall=(3, 1, C, C), five=(5, 5, C, C),
)  # fmt: skip
X = functools.partial(image, 1, 6, 6, C)

WHOLE = {
    "Flax": lambda x: nn.avg_pool(x, x.shape[1:3]),
    "mean": lambda x: x.mean((1, 2), keepdims=True),
    "sum": lambda x: x.sum((1, 2), keepdims=True) / (x.shape[1] * x.shape[2]),
    "rows, then columns": lambda x: x.mean(1, keepdims=True).mean(2, keepdims=True),
}


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("last", ["dense", "conv", "norm"])
def test_a_pool_over_the_whole_map_fits_every_resolution(name, last):
    def apply(w, x):
        y = WHOLE[name](relu(norm(w, conv(x, w["a"]))))
        if last == "dense":
            return y.reshape(-1, C) @ w["head"] + w["top"]
        return relu(norm(w, y, "n1") if last == "norm" else conv(y, w["one"]) + w["v"])

    fused = check(apply, W, X())
    for shape in ((2, 9, 7, C), (1, 3, 3, C), (1, 1, 1, C)):
        x = image(*shape)
        assert gap(apply, W, fused, x) <= 1e-12


def test_a_pool_that_happens_to_cover_the_map():
    def apply(w, x):
        y = pool(relu(conv(x, w["a"])), 6, 6)
        return relu(norm(w, y)).mean((1, 2)) @ w["head"]

    fused = check(apply, W, X())
    for shape in ((1, 12, 12, C), (1, 7, 13, C)):
        x = image(*shape)
        assert gap(apply, W, fused, x) <= 1e-12


LAST = {
    "norm": lambda w, y: relu(norm(w, y)),
    "conv": lambda w, y: relu(conv(y, w["one"]) + w["v"]),
}
FIRST = {
    "relu": lambda w, x: relu(conv(x, w["a"])),
    "norm": lambda w, x: norm(w, relu(x), "n1"),
    "pointwise": lambda w, x: norm(w, conv(relu(x), w["one"]), "n1"),
}


@pytest.mark.parametrize("last", LAST)
@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("sizes", [(6, 12, 7), (12, 6, 7), (7, 12, 6)])
def test_a_pool_of_one_size_on_maps_of_many(first, last, sizes):
    def apply(w, x):
        y = LAST[last](w, pool(FIRST[first](w, x), 6, 6))
        return y.mean((1, 2)) @ w["head"]

    fused = check(apply, W, image(1, sizes[0], sizes[0], C))
    for size in sizes[1:]:
        x = image(1, size, size, C)
        assert gap(apply, W, fused, x) <= 1e-12


def test_a_refusal_gives_its_own_reason():
    def apply(w, x):
        return relu(conv(conv(x, w["one"]) * float(x.shape[1]), w["a"]) + w["v"])

    fused = check(apply, W, X())
    try:
        found = fused.apply(fused.params, image(1, 8, 8, C))
    except ValueError as problem:
        found = str(problem)
    if isinstance(found, str):
        assert "SAME" not in found
    else:
        assert error(apply(W, image(1, 8, 8, C)), found) <= 1e-12


def test_a_refusal_of_another_parity_names_the_leaves():
    def apply(w, x):
        return relu(conv(x, w["a"], 2) + conv(x, w["one"], 2))

    fused = check(apply, W, X(), after={"conv": 1})
    with pytest.raises(ValueError, match="kernel"):
        fused.apply(fused.params, image(1, 7, 7, C))


def spec(shape):
    return jax.ShapeDtypeStruct(jax.export.symbolic_shape(shape), jnp.float64)


SYMBOLIC = {
    "branches": (
        lambda w, x: relu(norm(w, conv(x, w["a"], 1, 1)) + conv(x, w["one"], 1, 0) + x),
        {"conv": 1},
    ),
    "strides": (
        lambda w, x: relu(norm(w, conv(x, w["a"], 2, 1)) + conv(x, w["one"], 2, 0)),
        {"conv": 1},
    ),
    "a chain": (lambda w, x: relu(conv(conv(x, w["a"], 1, 1), w["one"], 1, 0)), {"conv": 1}),
    "a head": (
        lambda w, x: relu(norm(w, conv(x, w["a"], 1, 1))).mean((1, 2)) @ w["head"] + w["top"],
        {"conv": 1, "dot": 1},
    ),
    "a shift at the border": (
        lambda w, x: relu(conv(norm(w, x), w["a"], 1, 1) + w["v"]),
        {"conv": 1},
    ),
    "two padded kernels": (
        lambda w, x: relu(conv(conv(x, w["a"], 1, 1), w["b"], 1, 1)),
        {"conv": 2},
    ),
}


@pytest.mark.parametrize("name", SYMBOLIC)
@pytest.mark.parametrize("shape", ["1, h, w, 4", "b, h, w, 4"])
def test_what_is_legal_for_every_size_is_merged(name, shape):
    apply, after = SYMBOLIC[name]
    fused = fuse(apply, W, spec(shape))
    assert counts(fused.apply, fused.params, X()) == after
    for size in (6, 9):
        x = image(1, size, 8, C)
        assert gap(apply, W, fused, x) <= 1e-12


def test_what_depends_on_the_size_is_replayed_with_that_reason():
    def apply(w, x):
        return relu(conv(x, w["a"], 2, "SAME") + conv(x, w["five"], 2, "SAME"))

    fused = fuse(apply, W, spec("1, h, w, 4"))
    for size in (6, 7):
        x = image(1, size, size, C)
        assert gap(apply, W, fused, x) <= 1e-12
        assert counts(fused.apply, fused.params, x) == {"conv": 2}
    assert any("size" in reason for reason in fused.report.reasons)


def branches(w, x):
    return relu(conv(x, w["tall"], padding=[(1, 1), (0, 0)]) + norm(w, x))


@pytest.fixture
def tall(x64):
    fused = fuse(branches, W, X())
    kernel, bias = (next(leaf for leaf in fused.params if name in leaf) for name in
                    ("kernel", "bias"))  # fmt: skip
    return fused, kernel, bias


def test_a_transposed_kernel_is_refused(tall):
    fused, kernel, _ = tall
    wrong = {**fused.params, kernel: jnp.swapaxes(fused.params[kernel], 0, 1)}
    with pytest.raises(ValueError, match=rf"{kernel}.*\(1, 3, 4, 4\).*\(3, 1, 4, 4\)"):
        fused.apply(wrong, X())
    with pytest.raises(ValueError, match=kernel):
        jax.jit(fused.apply)(wrong, X())


WRONG = {"of one entry": (1,), "of no axes": (), "too long": (C + 1,), "a column": (C, 1)}


@pytest.mark.parametrize("name", WRONG)
def test_a_bias_of_another_shape_is_refused(tall, name):
    fused, _, bias = tall
    with pytest.raises(ValueError, match=rf"{bias}.*\(4,\)"):
        fused.apply({**fused.params, bias: jnp.ones(WRONG[name])}, X())


def test_all_wrong_shapes_are_listed(tall):
    fused, kernel, bias = tall
    with pytest.raises(ValueError, match=rf"(?s)(?=.*{kernel})(?=.*{bias})"):
        fused.apply(jax.tree.map(lambda leaf: leaf[..., :2], fused.params), X())


def test_leaves_that_pass_through_are_checked_too():
    fused = fuse(lambda w, x: jnp.tanh(x) @ w["head"] + w["top"], W, X())
    path = next(iter(fused.params))
    with pytest.raises(ValueError, match=path):
        fused.apply({**fused.params, path: fused.params[path][:1]}, X())


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, np.float64])
def test_other_types_are_accepted(tall, dtype):
    fused, *_ = tall
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), fused.params)
    found = fused.apply(params, X())
    assert found.shape == X().shape
    assert np.abs(np.asarray(found, float) - branches(W, X())).max() < 0.1


def test_stacked_parameters_go_through_vmap(tall):
    fused, *_ = tall
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), fused.params)
    with pytest.raises(ValueError, match="kernel"):
        fused.apply(stacked, X())
    found = jax.vmap(fused.apply, (0, None))(stacked, X())
    assert error(branches(W, X()), found[0]) <= 1e-12
