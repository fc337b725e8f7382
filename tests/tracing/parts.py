"""Pieces of programs, written as a person would write them: images are NHWC, kernels HWIO."""

from __future__ import annotations

import math

import jax
from jax import lax

from tests.tracing.checks import numbers

SPATIAL = {1: "H", 2: "HW", 3: "DHW"}


def conv(x, k, strides=1, padding="SAME", dilation=1, groups=1):
    """A convolution; `padding` is a word or the number of zeros on every side."""
    dims = x.ndim - 2
    space = SPATIAL[dims]
    if isinstance(padding, int):
        padding = [(padding, padding)] * dims
    return lax.conv_general_dilated(
        *(x, k, (strides,) * dims, padding),
        rhs_dilation=(dilation,) * dims,
        dimension_numbers=(f"N{space}C", f"{space}IO", f"N{space}C"),
        feature_group_count=groups,
    )


def norm(w, x, name="norm"):
    """Batch norm in inference, as Flax writes it."""
    mean, var, scale, bias = w[name]
    return (x - mean) * (lax.rsqrt(var + 1e-5) * scale) + bias


def keras_norm(w, x, name="norm"):
    """Batch norm in inference, as Keras writes it: one product and one sum."""
    mean, var, scale, bias = w[name]
    factor = lax.rsqrt(var + 1e-5) * scale
    return x * factor + (bias - mean * factor)


def pool(x, size=2, strides=2, padding="VALID"):
    """Average pool that counts its padding."""
    window, steps = (1, size, size, 1), (1, strides, strides, 1)
    if isinstance(padding, int):
        padding = [(0, 0), (padding, padding), (padding, padding), (0, 0)]
    return lax.reduce_window(x, 0.0, lax.add, window, steps, padding) / size**2


def statistics(features, seed):
    """Mean, variance, scale and shift of a batch norm."""
    mean, spread, scale, shift = (numbers(features, seed=seed + i) for i in range(4))
    return mean, 0.5 + spread**2, 1 + 0.3 * scale, shift


def weights(**shapes):
    """Random float64 NumPy arrays by name; an integer makes the four of a batch norm."""
    found = {}
    for seed, (name, shape) in enumerate(shapes.items(), 10):
        if isinstance(shape, int):
            found[name] = statistics(shape, 100 * seed)
        else:
            found[name] = numbers(*shape, seed=seed) / math.prod(shape[:-1]) ** 0.5
    return found


def relu(x):
    return jax.nn.relu(x)
