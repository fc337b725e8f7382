"""Fuzzing, second kind: minimal networks, expanded at random, are fused back to their count."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from repjax import fuse
from tests.tracing import moves
from tests.tracing.checks import counts, error, image, leaves_called, same_gradients
from tests.tracing.reading import work

pytestmark = pytest.mark.usefixtures("x64")

CHANNELS = 4


def convolve(x, kernel, padding):
    return lax.conv_general_dilated(
        x, kernel, (1, 1), [(padding, padding)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


class Expansion:
    """Rewrites a convolution as something longer of the same value, several times over."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.weights = {}

    def weight(self, value):
        name = f"w{len(self.weights):03d}"
        self.weights[name] = jnp.asarray(value)
        return lambda w: w[name]

    def vector(self):
        return self.weight(self.rng.uniform(0.5, 1.5, CHANNELS))

    def convolution(self, kernel, depth):
        """A function (weights, x) equal to the convolution with that kernel, zero-padded."""
        size = kernel.shape[0]
        kinds = ["plain", "explicit", "split", "norm", "permuted", "pointwise", "cast", "remat"]
        kinds += ["jit", "transposed", "bordered", "negated", "doubled", "cropped", "halves"]
        kinds += ["gathered", "reversed", "shuffled", "masked", "overwritten", "mirrored"]
        kinds += ["placed", "custom", "unnormed"]
        kind = self.rng.choice(kinds) if depth else "plain"
        if kind == "plain":
            k = self.weight(kernel)
            return lambda w, x: convolve(x, k(w), size // 2)
        if kind == "explicit":
            k, p = self.weight(kernel), size // 2
            return lambda w, x: convolve(jnp.pad(x, ((0, 0), (p, p), (p, p), (0, 0))), k(w), 0)
        if kind == "split":
            part = self.rng.normal(size=(1, 1, *kernel.shape[2:]))
            rest = kernel.copy()
            rest[size // 2, size // 2] -= part[0, 0]
            one, two = self.convolution(part, depth - 1), self.convolution(rest, depth - 1)
            return lambda w, x: one(w, x) + two(w, x)
        if kind in PERMUTATIONS:
            move, order = PERMUTATIONS[kind]
            inner = self.convolution(kernel[..., order], depth - 1)
            return lambda w, x: move(inner(w, x))
        if kind == "mirrored":
            inner = self.convolution(kernel[:, ::-1], depth - 1)
            return lambda w, x: inner(w, x[:, :, ::-1])[:, :, ::-1]
        if kind == "masked":
            one, two = kernel.copy(), self.rng.normal(size=kernel.shape)
            one[..., ~moves.MASK] = self.rng.normal(size=one[..., ~moves.MASK].shape)
            two[..., ~moves.MASK] = kernel[..., ~moves.MASK]
            first, second = self.convolution(one, depth - 1), self.convolution(two, depth - 1)
            return lambda w, x: jnp.where(moves.MASK, first(w, x), second(w, x))
        if kind == "overwritten":
            rest = np.where(np.arange(CHANNELS) == 1, kernel, 0)
            one, two = self.convolution(kernel, depth - 1), self.convolution(rest, depth - 1)
            return lambda w, x: one(w, x).at[..., 1].set(0.0) + two(w, x)
        if kind == "pointwise":
            q = np.linalg.qr(self.rng.normal(size=(CHANNELS, CHANNELS)))[0]
            one = self.convolution(q[None, None], 0)
            two = self.convolution(np.einsum("mi,hwio->hwmo", q.T, kernel), depth - 1)
            return lambda w, x: two(w, one(w, x))
        inner = self.convolution(kernel, depth - 1)
        if kind == "norm":
            m, s, b = self.vector(), self.vector(), self.vector()

            def norm(w, x):
                y = (inner(w, x) - m(w)) * s(w) + b(w)
                return (y - b(w)) / s(w) + m(w)

            return norm
        if kind == "unnormed":
            m, s = self.vector(), self.vector()
            return lambda w, x: (inner(w, x) * s(w) - m(w) + m(w)) / s(w)
        if kind == "placed":
            place = self.weight(self.rng.normal(size=(20, 20, CHANNELS)))

            def placed(w, x):
                p = place(w)[: x.shape[1], : x.shape[2]]
                return inner(w, x) + p - p

            return placed
        if kind == "custom":
            return lambda w, x: custom(inner)(w, x)
        if kind == "bordered":
            v = self.vector()

            def bordered(w, x):
                y = jnp.pad(inner(w, x) + v(w) - v(w), ((0, 0), (1, 1), (1, 1), (0, 0)))
                return y[:, 1:-1, 1:-1]

            return bordered
        if kind == "cropped":
            return lambda w, x: inner(w, jnp.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0))))[
                :, 2:-2, 2:-2
            ]
        return {
            "cast": lambda w, x: inner(w, x.astype(jnp.float64)).astype(jnp.float64),
            "remat": lambda w, x: jax.checkpoint(lambda x: inner(w, x))(x),
            "jit": lambda w, x: jax.jit(inner)(w, x),
            "negated": lambda w, x: 0.0 - (-inner(w, x)),
            "doubled": lambda w, x: 3.0 * inner(w, x) - 2 * inner(w, x),
            "transposed": lambda w, x: inner(w, x).transpose(0, 3, 1, 2).transpose(0, 2, 3, 1),
        }[kind]


PERMUTATIONS = {
    "permuted": (lambda y: jnp.concatenate([y[..., 2:], y[..., :2]], -1), [2, 3, 0, 1]),
    "halves": (moves.swapped, [2, 3, 0, 1]),
    "gathered": (lambda y: y[..., moves.ORDER], moves.BACK),
    "reversed": (lambda y: y[..., ::-1], [3, 2, 1, 0]),
    "shuffled": (moves.channel_shuffle, [0, 2, 1, 3]),
}


def custom(inner):
    """The same function, with its own derivative written out."""
    function = jax.custom_jvp(inner)
    function.defjvp(lambda primals, tangents: jax.jvp(inner, primals, tangents))
    return function


def run(seed, gradients=False):
    expansion = Expansion(seed)
    layers, kernels = [], []
    for _ in range(2):
        size = int(expansion.rng.choice([1, 3]))
        kernel = expansion.rng.normal(size=(size, size, CHANNELS, CHANNELS)) / (2 * size)
        kernels.append(kernel)
        layers.append(expansion.convolution(kernel, 4))

    def network(w, x):
        for layer in layers:
            x = jnp.tanh(layer(w, x))
        return x

    def minimal(x):
        for kernel in kernels:
            x = jnp.tanh(convolve(x, kernel, kernel.shape[0] // 2))
        return x

    x = image(2, 8, 8, CHANNELS)
    assert error(minimal(x), network(expansion.weights, x)) <= 1e-10
    fused = fuse(network, expansion.weights, x)
    found = fused.apply(fused.params, x)
    assert error(network(expansion.weights, x), found) <= 1e-12
    assert counts(fused.apply, fused.params, x) == {"conv": 2}
    assert work(fused.apply, fused.params, x).products == 0
    assert not leaves_called(fused.params, "bias_map")
    if gradients:
        same_gradients(network, expansion.weights, fused, x)


@pytest.mark.parametrize("seed", range(30))
def test_expanded_network(seed):
    run(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1300))
def test_more_expanded_networks(seed):
    run(seed, gradients=seed % 10 == 0)
