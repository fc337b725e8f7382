"""Fuzzing, first kind: random programs are computed exactly, with no more work than before."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.evaluate import Program
from tests.tracing import moves
from tests.tracing.checks import (
    array,
    counts_in,
    error,
    folded,
    image,
    named_leaves,
    no_more,
    same_gradients,
)
from tests.tracing.parts import conv, norm, pool
from tests.tracing.reading import work_in

pytestmark = pytest.mark.usefixtures("x64_on_all_threads")

C = 4
KINDS = (
    *("conv", "conv", "conv", "depthwise", "pointwise", "dot", "norm", "norm", "bias", "bias"),
    *("add", "add", "add", "sub", "neg", "scalar", "pool", "padcrop", "relu", "mul"),
    *("concat", "swap", "same", "cast", "jit", "remat", "strided", "border", "flip"),
    *("split", "flip channels", "gather", "mask", "set", "shuffle", "pixels", "fewer pixels"),
    *("examples", "padded examples", "slices of examples", "host", "other host", "reversed"),
    *("doubled", "straight", "place", "unpadded", "constant", "dead"),
)


class Draw:
    """Draws a program as a list of steps and the weights it needs."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.weights = {}
        self.steps = [self.step() for _ in range(self.rng.integers(5, 31))]

    def weight(self, *shape):
        name = f"m{len(self.weights):02d}"
        self.weights[name] = array(self.rng.uniform(0.5, 1.5, shape) / np.prod(shape[:-1]))
        return name

    def pick(self, *choices):
        return choices[self.rng.integers(len(choices))]

    def step(self):
        operands = tuple(self.rng.integers(0, 1 << 20, 2))
        kind = self.pick(*KINDS)
        args = {
            "conv": lambda: (self.weight(3, 3, C, C), self.pick(1, 1, 2), self.pick(1, 2)),
            "depthwise": lambda: (self.weight(3, 3, 1, C), 1, 1),
            "pointwise": lambda: (self.weight(1, 1, C, C), 1, 1),
            "unpadded": lambda: (self.weight(*self.pick((3, 3), (2, 2), (1, 3)), C, C),),
            "dot": lambda: (self.weight(C, C),),
            "norm": lambda: tuple(self.weight(C) for _ in range(4)),
            "bias": lambda: (self.weight(C),),
            "scalar": lambda: (float(self.rng.uniform(0.5, 2)),),
            "concat": lambda: (self.weight(2 * C, C),),
            "border": lambda: (self.weight(C),),
            "pixels": lambda: (self.weight(1, 1, C, 4 * C),),
            "fewer pixels": lambda: (self.weight(1, 1, 4 * C, C),),
            "mask": lambda: (self.weight(C),),
            "place": lambda: (self.weight(16, 16, C),),
        }.get(kind, lambda: ())()
        return kind, operands, args


def weightless(kind, x, y):
    """Steps that need no weight; on small images, those that shrink do nothing."""
    small = x.shape[1] < 4
    return {
        "add": lambda: x + y,
        "sub": lambda: x - y,
        "neg": lambda: -x,
        "mul": lambda: x * jnp.tanh(y),
        "relu": lambda: jax.nn.relu(x),
        "pool": lambda: x if small else pool(x),
        "padcrop": lambda: jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))[:, 1:-1, 1:-1],
        "swap": lambda: jnp.concatenate([x[..., 2:], x[..., :2]], -1),
        "same": lambda: x.transpose(0, 3, 1, 2).transpose(0, 2, 3, 1),
        "cast": lambda: x.astype(jnp.float64) * 1.0,
        "jit": lambda: jax.jit(lambda x, y: x + 2 * y)(x, y),
        "remat": lambda: jax.checkpoint(lambda x: jnp.sin(x) + x)(x),
        "strided": lambda: x if small else x[:, ::2, ::2],
        "flip": lambda: x[:, ::-1],
        "split": lambda: moves.swapped(x),
        "flip channels": lambda: x[..., ::-1],
        "gather": lambda: x[..., moves.ORDER],
        "shuffle": lambda: moves.channel_shuffle(x),
        "examples": lambda: moves.swapped_examples(x),
        "padded examples": lambda: moves.padded_examples(x),
        "slices of examples": lambda: jnp.concatenate([x[:1] - y[1:], y[:1]]),
        "host": lambda: moves.on_host(moves.sine, x),
        "other host": lambda: moves.on_host(moves.cosine, x),
        "reversed": lambda: moves.reversed_gradient(x),
        "doubled": lambda: moves.doubled_gradient(x),
        "straight": lambda: moves.straight(x),
        "set": lambda: x.at[..., 1:3].set(0.25),
        "constant": lambda: x * np.array([1.0, 2.0, 0.5, -1.0]) - 0.5,
        "dead": lambda: (jnp.exp(y), x)[1],
    }[kind]()


def step(kind, x, y, w, rest):
    """One step on `x`, perhaps with `y` of the same shape, weights `w` and other arguments."""
    small, (k, *_) = x.shape[1] < 4, (*w, None)
    if kind in {"conv", "depthwise", "pointwise"}:
        strides, dilation = rest
        groups = C if kind == "depthwise" else 1
        pad = dilation * (k.shape[0] // 2)
        return conv(x, k, 1 if small else strides, pad, dilation, groups)
    if kind == "unpadded":
        return conv(x, k, padding="SAME" if small else "VALID")
    if kind == "dot":
        return x @ k
    if kind == "norm":
        return norm({"norm": w}, x)
    if kind == "bias":
        return x - k
    if kind == "border":
        return jnp.pad(x + k - k, ((0, 0), (1, 1), (0, 2), (0, 0)))[:, 1:-1, :-2]
    if kind == "scalar":
        return rest[0] * x / 3.0
    if kind == "concat":
        return jnp.concatenate([x, y], -1) @ k
    if kind == "pixels":
        return moves.pixel_shuffle(conv(x, k)) if x.shape[1] < 8 else x
    if kind == "fewer pixels":
        odd = x.shape[1] % 2 or x.shape[2] % 2
        return x if small or odd else conv(moves.pixel_unshuffle(x), k)
    if kind == "mask":
        return jnp.where(moves.MASK, x, k) - jnp.where(moves.MASK, 0.0, y)
    if kind == "place":
        return x + k[: x.shape[1], : x.shape[2]]
    return weightless(kind, x, y)


def program(steps, w, *inputs):
    values = list(inputs)
    for kind, (i, j), args in steps:
        x = values[-1 - i % min(4, len(values))]
        alike = [value for value in values if value.shape == x.shape]
        arrays = [w[arg] for arg in args if isinstance(arg, str)]
        rest = [arg for arg in args if not isinstance(arg, str)]
        values.append(step(kind, x, alike[j % len(alike)], arrays, rest))
    return values[-3:] if len(steps) % 2 else values[-1]


def run(seed, gradients):
    drawn = Draw(seed)
    inputs = (image(2, 8, 8, C), image(2, 8, 8, C, seed=2))

    def apply(w, *inputs):
        return program(drawn.steps, w, *inputs)

    fused = folded(apply, drawn.weights, *inputs)
    one, two = Program(apply, drawn.weights, *inputs), Program(fused.apply, fused.params, *inputs)
    assert error(one.outputs(), two.outputs()) <= 1e-12, (seed, drawn.steps)
    before, after = counts_in(one), counts_in(two)
    for name in ("conv", "dot", "pool"):
        assert after.get(name, 0) <= before.get(name, 0), (seed, drawn.steps)
    no_more(work_in(one, drawn.weights), work_in(two, fused.params))
    stored = sum(leaf.size for path, leaf in named_leaves(fused.params) if "bias_map" not in path)
    assert stored <= sum(leaf.size for leaf in drawn.weights.values()), (seed, drawn.steps)
    if gradients:
        same_gradients(apply, drawn.weights, fused, *inputs)


@pytest.mark.parametrize("seed", range(30))
def test_random_program(seed):
    run(seed, gradients=seed % 10 == 0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1300))
def test_more_random_programs(seed):
    run(seed, gradients=seed % 3 == 0)
