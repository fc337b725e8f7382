"""Channels and places that are moved, masked or overwritten between a convolution and the next.

A permutation of channels goes into a kernel; what moves channels into space (a pixel shuffle)
or turns space round (a flip) lets norms and sums pass, to the convolution before it.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.tracing.checks import check, image
from tests.tracing.parts import conv, norm, relu, weights
from tests.tracing.reading import work

pytestmark = pytest.mark.usefixtures("x64")

C = 4
W = weights(
    a=(3, 3, C, C), b=(3, 3, C, C), one=(1, 1, C, C), v=(C,), norm=C, n2=C, n3=3, half=C // 2,
    up=(3, 3, C, 4 * C), up1=(1, 1, C, 4 * C), wide=(1, 1, 4 * C, C), second=C // 2,
)  # fmt: skip
X = functools.partial(image, 1, 6, 6, C)
MOVES = ("rev", "gather", "transpose", "concatenate", "split", "dynamic_update_slice", "scatter")
MOVES = (*MOVES, "select_n")


def shuffle(x, groups=2):
    *rest, c = x.shape
    return x.reshape(*rest, groups, c // groups).swapaxes(-1, -2).reshape(x.shape)


def swap(x):
    one, two = lax.split(x, (2, 2), 3)
    return jnp.concatenate([two, one], -1)


PERMUTATIONS = {
    "shuffle": shuffle,
    "flip": lambda x: x[..., ::-1],
    "flip by rev": lambda x: lax.rev(x, (3,)),
    "gather": lambda x: x[..., np.array([2, 0, 3, 1])],
    "take": lambda x: jnp.take(x, jnp.array([2, 0, 3, 1]), axis=-1),
    "roll": lambda x: jnp.roll(x, 1, -1),
    "split and join": swap,
}
NEXT = {
    "norm": lambda w, x, move: norm(w, move(conv(x, w["a"]))),
    "sum": lambda w, x, move: move(conv(x, w["a"])) + conv(x, w["b"]),
    "sum with the input": lambda w, x, move: move(conv(x, w["a"])) + x,
    "convolution": lambda w, x, move: conv(move(conv(x, w["one"])), w["a"]),
}


CASES = [(move, "norm") for move in PERMUTATIONS]
CASES += [(move, then) for move in ("shuffle", "gather", "split and join") for then in NEXT]


@pytest.mark.parametrize(("move", "then"), dict.fromkeys(CASES))
def test_a_permutation_goes_into_the_kernel(move, then):
    def apply(w, x):
        return jnp.tanh(NEXT[then](w, x, PERMUTATIONS[move]))

    check(apply, W, X(), after={"conv": 1}, products=0, gone=MOVES)


def test_a_permutation_before_the_convolution_goes_into_it():
    def apply(w, x):
        return jnp.tanh(conv(shuffle(relu(x)), w["a"]))

    check(apply, W, X(), after={"conv": 1}, gone=MOVES)


def test_fewer_channels_are_fewer_outputs():
    def apply(w, x):
        return relu(norm(w, conv(x, w["a"])[..., np.array([2, 0, 1])], "n3"))

    fused = check(apply, W, X(), after={"conv": 1}, products=0, gone=MOVES)
    assert work(fused.apply, fused.params, X()).outputs == [(1, 6, 6, 3)]


def test_channels_chosen_by_data_or_weights_stay():
    def apply(w, x, index):
        y = norm(w, conv(x, w["a"])[..., index])
        return relu(y), relu(norm(w, conv(x, w["b"])[..., w["order"]], "n2"))

    w = {**W, "order": jnp.array([1, 0, 3, 2])}
    check(apply, w, X(), jnp.array([0, 3, 2, 1]), after={"conv": 2})


FLIPS = {
    "height": lambda x: x[:, ::-1],
    "width": lambda x: lax.rev(x, (2,)),
    "both": lambda x: x[:, ::-1, ::-1],
}


@pytest.mark.parametrize("flip", FLIPS)
def test_norm_passes_a_flip_in_space(flip):
    def apply(w, x):
        return relu(norm(w, FLIPS[flip](conv(x, w["a"]))))

    check(apply, W, X(), after={"conv": 1}, products=0, shifts=1)


def test_a_convolution_between_two_flips_is_a_convolution():
    def apply(w, x):
        return relu(conv(x, w["a"]) + conv(x[:, ::-1], w["b"])[:, ::-1])

    check(apply, W, X(), before={"conv": 2}, after={"conv": 1}, gone=MOVES)


@pytest.mark.parametrize("flip", FLIPS)
def test_flips_of_two_convolutions_are_one(flip):
    def apply(w, x):
        return relu(FLIPS[flip](conv(x, w["a"])) + FLIPS[flip](conv(x, w["b"])))

    check(apply, W, X(), before={"conv": 2}, after={"conv": 1}, gradients=flip == "width")


def test_a_convolution_and_its_flipped_image_stay_two():
    def apply(w, x):
        return relu(conv(x, w["a"]) + conv(x, w["b"])[:, ::-1])

    check(apply, W, X(), after={"conv": 2})


def pixel_shuffle(x, r=2):
    n, h, w, c = x.shape
    x = x.reshape(n, h, w, r, r, c // r**2).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, h * r, w * r, c // r**2)


def pixel_shuffle_of_torch(x, r=2):
    n, h, w, c = x.shape
    x = x.reshape(n, h, w, c // r**2, r, r).transpose(0, 1, 4, 2, 5, 3)
    return x.reshape(n, h * r, w * r, c // r**2)


@pytest.mark.parametrize("move", [pixel_shuffle, pixel_shuffle_of_torch])
def test_norm_passes_a_pixel_shuffle(move):
    def apply(w, x):
        return relu(norm(w, move(conv(x, w["up"]))))

    check(apply, W, X(), after={"conv": 1}, products=0)


def test_pixel_shuffles_of_two_convolutions_are_one():
    def apply(w, x):
        return relu(pixel_shuffle(conv(x, w["up"])) + pixel_shuffle(conv(x, w["up1"])) + w["v"])

    check(apply, W, X(), before={"conv": 2}, after={"conv": 1}, shifts=1)


def test_different_shuffles_stay_apart():
    def apply(w, x):
        y = pixel_shuffle(conv(x, w["up"])) + pixel_shuffle_of_torch(conv(x, w["up1"]))
        return relu(norm(w, y))

    check(apply, W, X(), before={"conv": 2}, after={"conv": 2})


def test_space_to_depth_is_a_convolution_with_strides():
    def apply(w, x):
        parts = [x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]
        return relu(conv(jnp.concatenate(parts, -1), w["wide"]))

    # the same multiply-accumulates, nothing moved
    check(apply, W, X(), after={"conv": 1}, gone=("concatenate", "slice"))


def split(x):
    return lax.split(x, (C // 2, C // 2), 3)


SPLITS = {
    "joined again": lambda w, x: relu(norm(w, jnp.concatenate(split(conv(x, w["a"])), -1))),
    "added": lambda w, x: relu(sum(split(conv(x, w["a"]))) + w["half"][0]),
    "norm before": lambda w, x: [
        f(y) for f, y in zip((relu, jnp.tanh), split(norm(w, conv(x, w["a"]))), strict=True)
    ],
    "gate": lambda w, x: (y := split(norm(w, conv(x, w["a"]))))[0] * jax.nn.sigmoid(y[1]),
    "one result": lambda w, x: relu(norm(w, split(conv(x, w["a"]))[1], "half")),
}


@pytest.mark.parametrize("name", SPLITS)
def test_split(name):
    check(SPLITS[name], W, X(), before={"conv": 1}, after={"conv": 1}, products=0)


def test_norms_of_both_halves_keep_one_convolution():
    def apply(w, x):
        halves = zip(("half", "second"), split(conv(x, w["a"])), strict=True)
        return [relu(norm(w, y, name)) for name, y in halves]

    # two halves lead to two values: folding their norms would take a convolution for each
    check(apply, W, X(), before={"conv": 1}, after={"conv": 1})


def test_a_result_that_nobody_reads_is_not_computed():
    fused = check(SPLITS["one result"], W, X(), gone=("split", "slice"))
    assert work(fused.apply, fused.params, X()).outputs == [(1, 6, 6, C // 2)]


def test_a_convolution_on_a_part_of_the_channels_stays_small():
    def apply(w, x):
        one, two = split(relu(x))
        return jnp.concatenate([conv(one, w["a"][:, :, :2, :2]), two], -1)

    fused = check(apply, W, X(), after={"conv": 1})
    assert work(fused.apply, fused.params, X()).macs == 36 * 2 * 9 * 2


MASK = np.array([True, False, True, True])
MASKS = {
    "and zero": lambda w, x: jnp.where(MASK, conv(x, w["a"]), 0.0),
    "and the input": lambda w, x: jnp.where(MASK, conv(x, w["a"]), x),
    "and another convolution": lambda w, x: jnp.where(MASK, conv(x, w["a"]), conv(x, w["b"])),
    "and a weight": lambda w, x: jnp.where(MASK, conv(x, w["a"]), w["v"]),
    "then norm": lambda w, x: norm(w, jnp.where(MASK, conv(x, w["a"]), x)),
    "of full shape": lambda w, x: jnp.where(jnp.broadcast_to(MASK, x.shape), conv(x, w["a"]), x),
    "set": lambda w, x: conv(x, w["a"]).at[..., 1:3].set(0.5) + w["v"],
    "set to zero": lambda w, x: norm(w, conv(x, w["a"]).at[..., 1:3].set(0.0)),
    "set to a weight": lambda w, x: norm(w, conv(x, w["a"]).at[..., 1:3].set(w["v"][:2])),
    "set one": lambda w, x: norm(w, conv(x, w["a"]).at[..., 2].set(1.0)),
}


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_on_channels_goes_into_the_kernel(name):
    def apply(w, x):
        return jnp.tanh(MASKS[name](w, x))

    check(apply, W, X(), after={"conv": 1}, products=0, gone=MOVES)


PLACES = np.arange(6)[:, None, None] % 2 == 0
KEPT = {
    "places": lambda w, x, m: jnp.where(PLACES, conv(x, w["a"]), conv(x, w["b"])),
    "data": lambda w, x, m: jnp.where(m, conv(x, w["a"]), conv(x, w["b"])),
    "the sign": lambda w, x, m: jnp.where(x > 0, conv(x, w["a"]), conv(x, w["b"])),
    "a window of places": lambda w, x, m: conv(x, w["a"]).at[:, 1:3].set(0.5) + conv(x, w["b"]),
}


@pytest.mark.parametrize("name", KEPT)
def test_other_masks_stay(name):
    mask = jnp.asarray(MASK)
    check(KEPT[name], W, X(), mask, before={"conv": 2}, after={"conv": 2})
