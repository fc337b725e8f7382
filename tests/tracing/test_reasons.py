"""Every reason is true, every place has a name."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax import lax

from repjax import fuse
from repjax.blocks import RepVGGBlock
from tests.tracing.checks import check, image, linen
from tests.tracing.parts import conv, norm, pool, relu, weights

pytestmark = pytest.mark.usefixtures("x64")

C = 4
W = weights(
    a=(3, 3, C, C), b=(3, 3, C, C), one=(1, 1, C, C), two=(1, 1, C, C), down=(1, 1, C, 1),
    up=(1, 1, 1, C), wide=(9, 1, C, C), high=(1, 9, C, C), v=(C,), norm=C, tokens=(36, 5),
)  # fmt: skip
X = functools.partial(image, 1, 6, 6, C)


def max_pool(x, padding="VALID"):
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), padding)


def padded(x):
    return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))


def split(x):
    return lax.split(x, (2, 2), 3)


def reasons(apply, *inputs):
    report = check(apply, W, *inputs or (X(),)).report
    assert all(kept.path and kept.operation and kept.reason for kept in report.kept)
    assert all(region.path for region in report.regions)
    return list(report.reasons)


# The programs, and what may not be said of them.
UNTRUE = {
    "two uses, both linear": (
        lambda w, x: [conv(y := relu(x) @ w["one"][0, 0], w["a"]), conv(y, w["b"])],
        "0 of them non-linear",
    ),
    "three uses, all linear": (
        lambda w, x: [conv(y := conv(x, w["a"]), w["a"]), conv(y, w["b"]), y + x],
        "0 of them non-linear",
    ),
    "one kernel, padding, a maximum": (
        lambda w, x: max_pool(padded(conv(x, w["a"]))),
        "two spatial kernels",
    ),
    "a padded maximum": (lambda w, x: max_pool(conv(x, w["a"]), "SAME"), "two spatial kernels"),
    "layer norm": (
        lambda w, x: jax.nn.standardize(conv(x, w["a"])) * w["v"],
        "1/N",
    ),
    "layer norm by hand": (
        lambda w, x: (y := conv(x, w["a"])) - y.mean(-1, keepdims=True),
        "1/N",
    ),
    "split": (lambda w, x: [relu(y) for y in split(conv(x, w["a"]))], "not linear: split"),
    "halves multiplied": (
        lambda w, x: (y := split(conv(x, w["a"])))[0] * y[1],
        "not linear: split",
    ),
    "gather by data": (
        lambda w, x: conv(x, w["a"])[..., (x[0, 0, 0] > 0).astype(int)],
        "not linear: gather",
    ),
    "reshape to tokens": (
        lambda w, x: relu(conv(x, w["a"]).reshape(1, 36 * C)),
        "not linear: reshape",
    ),
    "a reshape that mixes": (
        lambda w, x: conv(x, w["a"]).swapaxes(1, 3).reshape(-1, 36) @ w["tokens"],
        "not linear: reshape",
    ),
    "concatenate": (
        lambda w, x: relu(jnp.concatenate([conv(x, w["a"]), jnp.sin(x)], -1)),
        "not linear: concatenate",
    ),
    "concatenate in space": (
        lambda w, x: relu(jnp.concatenate([conv(x, w["a"]), conv(x, w["b"])], 1)),
        "not linear: concatenate",
    ),
    "cumulative sum": (lambda w, x: jnp.cumsum(conv(x, w["a"]), 1), "not linear"),
    "fourier transform": (lambda w, x: jnp.fft.rfft(conv(x, w["a"]), axis=1), "not linear"),
    "roll": (lambda w, x: jnp.roll(conv(x, w["a"]), 1, 1), "not linear"),
    "a sum over space": (lambda w, x: conv(x, w["a"]).sum((1, 2)), "not linear"),
}


@pytest.mark.parametrize("name", UNTRUE)
def test_untrue_reasons_are_not_given(name):
    apply, untrue = UNTRUE[name]
    assert not [reason for reason in reasons(apply) if untrue in reason]


def test_sums_of_different_inputs_are_said_to_be_that():
    def apply(w, x, z):
        return relu(conv(relu(x), w["a"]) + conv(relu(z), w["b"]))

    found = reasons(apply, X(), X(seed=2))
    assert any("different inputs" in reason for reason in found)
    assert not any("cheaper apart" in reason for reason in found)


def test_stacks_of_different_inputs_are_said_to_be_that():
    def apply(w, x, z):
        return relu(jnp.concatenate([conv(relu(x), w["a"]), conv(relu(z), w["b"])], -1))

    found = reasons(apply, X(), X(seed=2))
    untrue = ("cheaper apart", "not linear: concatenate")
    assert not any(words in reason for reason in found for words in untrue)


@pytest.mark.parametrize("transform", [jnp.cumsum, jnp.fft.rfft])
def test_what_has_no_rule_is_said_to_have_none(transform):
    found = reasons(lambda w, x: transform(conv(x, w["a"]), axis=1))
    assert any("no rule" in reason for reason in found)


@pytest.mark.parametrize("function", [jnp.tanh, jnp.exp, jnp.abs])
def test_what_is_not_linear_is_said_to_be_that(function):
    found = reasons(lambda w, x: conv(function(conv(x, w["one"])), w["two"]))
    assert any("not linear" in reason for reason in found)


DEARER = {
    "bottleneck": lambda w, x: jnp.tanh(conv(conv(x, w["down"]), w["up"])),
    "a cross": lambda w, x: jnp.tanh(conv(x, w["wide"]) + conv(x, w["high"])),
}


@pytest.mark.parametrize("name", DEARER)
def test_cheaper_apart_comes_with_both_prices(name):
    report = fuse(DEARER[name], W, X()).report
    (prices,) = {kept.prices for kept in report.kept if kept.reason == "cheaper apart"}
    assert prices[0] < prices[1]
    assert f"{prices[0]:,.0f} apart, {prices[1]:,.0f} together" in str(report)


def two_stages(first, second):
    """A Keras-like program: variables in lists, module scopes around the operations."""

    def apply(w, x):
        with jax.named_scope(first):
            x = relu(conv(x, w["t"][0]) + conv(x, w["t"][1]) + w["t"][2])
        with jax.named_scope(second):
            return relu(conv(x, w["t"][3]) + w["n"][0])

    return apply


LISTS = {
    "lists": {"t": [W["a"], W["one"], W["v"], W["b"]], "n": [W["v"]]},
    "tuples": {"t": (W["a"], W["one"], W["v"], W["b"]), "n": (W["v"],)},
}


@pytest.mark.parametrize("kind", LISTS)
def test_regions_of_unnamed_variables_are_named_by_their_scope(kind):
    fused = check(two_stages("stage1", "stage2"), LISTS[kind], X(), after={"conv": 2})
    paths = [region.path for region in fused.report.regions]
    assert ["stage1" in path for path in paths] == [True, False]
    assert ["stage2" in path for path in paths] == [False, True]


def test_regions_of_a_flat_list_are_named_by_nested_scopes():
    def apply(w, x):
        with jax.named_scope("model"):
            for number in range(2):
                with jax.named_scope(f"block{number}"):
                    x = relu(norm({"norm": w[4 * number + 1 : 4 * number + 5]}, conv(x, w[0])))
        return x

    w = [W["a"], *W["norm"], *W["norm"]]
    paths = [region.path for region in fuse(apply, w, X()).report.regions]
    assert ["block0" in path for path in paths] == [True, False]
    assert ["block1" in path for path in paths] == [False, True]


def test_variables_that_say_something_win():
    def apply(w, x):
        with jax.named_scope("scope"):
            return relu(conv(x, w["encoder"]["kernel"]) + w["encoder"]["bias"])

    w = {"encoder": {"kernel": W["a"], "bias": W["v"]}}
    (region,) = fuse(apply, w, X()).report.regions
    assert region.path == "encoder"


class Blocks(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = RepVGGBlock(C, name="first")(x)
        return jnp.tanh(RepVGGBlock(C, name="second")(x))


def test_equations_of_blocks_are_not_part_of_a_path():
    fused = fuse(Blocks().apply, linen(Blocks(), X()), X())
    paths = [region.path for region in fused.report.regions]
    assert [path.split("/")[0] for path in paths] == ["first", "second"]
    for path in (*paths, *(kept.path for kept in fused.report.kept)):
        assert path
        assert "=" not in path


def test_a_program_without_names_has_places():
    def apply(w, x):
        return relu(pool(relu(conv(x, w[0])))) + 1.0

    fused = fuse(apply, (W["a"],), X())
    assert all(region.path for region in fused.report.regions)
    assert all(kept.path for kept in fused.report.kept)
