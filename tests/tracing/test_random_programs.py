"""Fuzzing, first kind: random programs are computed exactly, with no more convolutions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from repjax.tracing.fused import fuse
from tests.tracing.checks import counts, error, image

pytestmark = pytest.mark.usefixtures("x64")

CHANNELS = 4
NUMBERS = ("NHWC", "HWIO", "NHWC")


class Draw:
    """Draws a program as a list of steps and the weights it needs."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.weights = {}
        self.steps = [self.step() for _ in range(self.rng.integers(5, 31))]

    def weight(self, *shape):
        name = f"m{len(self.weights):02d}"
        self.weights[name] = jnp.asarray(self.rng.uniform(0.5, 1.5, shape) / np.prod(shape[:-1]))
        return name

    def pick(self, *choices):
        return choices[self.rng.integers(len(choices))]

    def step(self):
        c = CHANNELS
        operands = tuple(self.rng.integers(0, 1 << 20, 2))
        kind = self.pick(
            *("conv", "conv", "conv", "depthwise", "pointwise", "dot", "norm", "norm", "bias"),
            *("add", "add", "add", "sub", "neg", "scalar", "pool", "padcrop", "relu", "mul"),
            *("concat", "split", "same", "cast", "jit", "remat", "strided", "border", "flip"),
        )
        args = {
            "conv": lambda: (self.weight(3, 3, c, c), self.pick(1, 1, 2), self.pick(1, 2)),
            "depthwise": lambda: (self.weight(3, 3, 1, c), 1, 1),
            "pointwise": lambda: (self.weight(1, 1, c, c), 1, 1),
            "dot": lambda: (self.weight(c, c),),
            "norm": lambda: tuple(self.weight(c) for _ in range(4)),
            "bias": lambda: (self.weight(c),),
            "scalar": lambda: (float(self.rng.uniform(0.5, 2)),),
            "concat": lambda: (self.weight(2 * c, c),),
            "border": lambda: (self.weight(c),),
        }.get(kind, lambda: ())()
        return kind, operands, args


def halve(x):
    return lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") / 4


def weightless(kind, x, y):
    """Steps that need no weight; on small images, those that shrink do nothing."""
    small = x.shape[1] < 4
    return {
        "add": lambda: x + y,
        "sub": lambda: x - y,
        "neg": lambda: -x,
        "mul": lambda: x * jnp.tanh(y),
        "relu": lambda: jax.nn.relu(x),
        "pool": lambda: x if small else halve(x),
        "padcrop": lambda: jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))[:, 1:-1, 1:-1],
        "split": lambda: jnp.concatenate([x[..., 2:], x[..., :2]], -1),
        "same": lambda: x.transpose(0, 3, 1, 2).transpose(0, 2, 3, 1),
        "cast": lambda: x.astype(jnp.float64) * 1.0,
        "jit": lambda: jax.jit(lambda x, y: x + 2 * y)(x, y),
        "remat": lambda: jax.checkpoint(lambda x: jnp.sin(x) + x)(x),
        "strided": lambda: x if small else x[:, ::2, ::2],
        "flip": lambda: x[:, ::-1],
    }[kind]()


def program(steps, w, *inputs):
    values = list(inputs)
    for kind, (i, j), args in steps:
        x = values[-1 - i % min(4, len(values))]
        alike = [value for value in values if value.shape == x.shape]
        y = alike[j % len(alike)]
        small = x.shape[1] < 4
        if kind in {"conv", "depthwise", "pointwise"}:
            name, strides, dilation = args
            pad = dilation * (w[name].shape[0] // 2)
            z = lax.conv_general_dilated(
                *(x, w[name], (1 if small else strides,) * 2, [(pad, pad)] * 2),
                rhs_dilation=(dilation,) * 2,
                dimension_numbers=NUMBERS,
                feature_group_count=CHANNELS if kind == "depthwise" else 1,
            )
        elif kind == "dot":
            z = x @ w[args[0]]
        elif kind == "norm":
            mean, var, scale, bias = (w[name] for name in args)
            z = (x - mean) * (lax.rsqrt(var + 1e-5) * scale) + bias
        elif kind == "bias":
            z = x - w[args[0]]
        elif kind == "border":
            b = w[args[0]]
            z = jnp.pad(x + b - b, ((0, 0), (1, 1), (0, 2), (0, 0)))[:, 1:-1, :-2]
        elif kind == "scalar":
            z = args[0] * x / 3.0
        elif kind == "concat":
            z = jnp.concatenate([x, y], -1) @ w[args[0]]
        else:
            z = weightless(kind, x, y)
        values.append(z)
    return values[-3:] if len(steps) % 2 else values[-1]


def run(seed):
    drawn = Draw(seed)
    inputs = (image(1, 8, 8, CHANNELS), image(1, 8, 8, CHANNELS, seed=2))

    def apply(w, *inputs):
        return program(drawn.steps, w, *inputs)

    fused = fuse(apply, drawn.weights, *inputs)
    expected, found = apply(drawn.weights, *inputs), fused.apply(fused.params, *inputs)
    assert error(expected, found) <= 1e-12, (seed, drawn.steps)
    before, after = (
        counts(apply, drawn.weights, *inputs),
        counts(fused.apply, fused.params, *inputs),
    )
    assert after.get("conv", 0) <= before.get("conv", 0), (seed, drawn.steps)
    assert sum(after.values()) <= sum(before.values()), (seed, drawn.steps)
    totals = fused.report.totals
    assert totals.macs_after <= totals.macs_before, (seed, drawn.steps)
    return before, after


@pytest.mark.parametrize("seed", range(30))
def test_random_program(seed):
    run(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1300))
def test_more_random_programs(seed):
    run(seed)
