"""What a `Conv` means, in NumPy float64, from the definition: no XLA and no compilation."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from repjax.algebra import Conv


def apply(conv: Conv, x: np.ndarray) -> np.ndarray:
    """`conv` on data (batch, spatial..., in), summed tap by tap."""
    kernel = np.asarray(conv.kernel, np.float64)
    size = x.shape[1:-1]
    outputs = [_outputs(conv, axis, n) for axis, n in enumerate(size)]
    groups, inputs = conv.groups, kernel.shape[-2]
    y = np.zeros((x.shape[0], *outputs, groups, conv.features // groups))
    for tap in itertools.product(*map(range, conv.kernel_size)):
        pixels, real = [], []
        for axis, n in enumerate(size):
            position = np.arange(outputs[axis]) * conv.strides[axis]
            position += tap[axis] * conv.dilation[axis] - conv.padding[axis][0]
            pixel, rest = np.divmod(position, conv.input_dilation[axis])
            inside = (rest == 0) & (pixel >= 0) & (pixel < n)
            real.append(inside)
            pixels.append(pixel[inside])
        window = x[(slice(None), *np.ix_(*pixels))] if size else x
        weight = kernel[tap].reshape(inputs, groups, -1)
        grouped = window.reshape(*window.shape[:-1], groups, inputs)
        term = np.einsum("...gi,igo->...go", grouped, weight)
        if size:
            y[(slice(None), *np.ix_(*real))] += term
        else:
            y += term
    y = y.reshape(*y.shape[:-2], conv.features)
    return y if conv.bias is None else y + np.asarray(conv.bias, np.float64)


def _outputs(conv: Conv, axis: int, size: int) -> int:
    # Counted, not computed: a window starts at every stride while it fits.
    low, high = conv.padding[axis]
    dilated = (size - 1) * conv.input_dilation[axis] + 1 if size else 0
    extent = (conv.kernel_size[axis] - 1) * conv.dilation[axis] + 1
    return len(range(0, low + dilated + high - extent + 1, conv.strides[axis]))


def magnitude(conv: Conv, x: np.ndarray) -> np.ndarray:
    """``|K| * |x| + |b|``: the scale of the rounding errors of `conv` at `x`, elementwise."""
    bias = None if conv.bias is None else np.abs(np.asarray(conv.bias, np.float64))
    kernel = np.abs(np.asarray(conv.kernel, np.float64))
    return apply(conv.replace(kernel=kernel, bias=bias), np.abs(np.asarray(x, np.float64)))


def images(size: Sequence[int], features: int, *, batch: int = 2, seed: int = 0) -> np.ndarray:
    """Normal random data (batch, spatial..., features)."""
    return np.random.default_rng(seed).normal(size=(batch, *size, features))


def assert_same(found: np.ndarray, expected: np.ndarray, what: object = "") -> None:
    """Equal to 1e-12 of the largest value of `expected`, in shape too."""
    assert found.shape == expected.shape, (found.shape, expected.shape, what)
    if expected.size:
        error = np.abs(found - expected).max()
        assert error <= 1e-12 * max(np.abs(expected).max(), 1e-300), (error, what)
