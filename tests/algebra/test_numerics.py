"""Lower precisions: a folded block stays within ``c * u * (|K| |x| + |b|)`` of float64.

u is the unit roundoff of the type of the block; |K| and |b| are summed over its branches,
with the parts of a batch norm's shift apart: where branches cancel, the sum of a fold is
smaller than the terms it rounds.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repjax.algebra import Conv, add, batch_norm, compose, identity

from .folding import fold
from .reference import apply, images

C = 8.0
FEATURES = 8
EPSILON = 1e-5
CASES = {
    "1-D": ((3,), (9,), 1),
    "1-D grouped": ((3,), (9,), 4),
    "2-D": ((3, 3), (5, 6), 1),
    "2-D grouped": ((5, 3), (6, 5), 4),
}

Branch = tuple[Conv, list[jax.Array]]


def statistics(random: np.random.Generator) -> list[np.ndarray]:
    """Mean, variance (from tiny to large), scale and bias, of both signs."""
    mean, scale, bias = random.normal(size=(3, FEATURES))
    return [mean, random.lognormal(sigma=3.0, size=FEATURES), scale, bias]


def branches(taps: tuple[int, ...], groups: int, seed: int, dtype: str) -> list[Branch]:
    """Three convolutions of one input, each with its statistics, rounded to `dtype`."""
    random = np.random.default_rng(seed)
    dims, inputs = len(taps), FEATURES // groups
    convs = [
        Conv(
            random.normal(size=(*taps, inputs, FEATURES)),
            random.normal(size=FEATURES),
            padding=[((n - 1) // 2, (n - 1) // 2) for n in taps],
            groups=groups,
        ),
        Conv(random.normal(size=(*(1,) * dims, inputs, FEATURES)), groups=groups),
        identity(FEATURES, dims=dims),
    ]
    return [
        (conv.astype(dtype), [jnp.asarray(stat).astype(dtype) for stat in statistics(random)])
        for conv in convs
    ]


def folded(block: list[Branch]) -> Conv:
    """Batch norms into convolutions, convolutions into one, stored in the type of the block."""
    norms = [batch_norm(*stats, epsilon=EPSILON, dims=conv.dims) for conv, stats in block]

    def fuse(*convs: Conv) -> Conv:
        pairs = zip(convs[: len(block)], convs[len(block) :], strict=True)
        return add(*[compose(*pair) for pair in pairs]).astype(block[0][0].kernel.dtype)

    return fold(fuse, *[conv for conv, _ in block], *norms)


def exactly(block: list[Branch], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The block in float64 from what is stored, and ``|K| |x| + |b|`` of its branches."""
    total = scale_of_errors = np.zeros(1)
    for conv, stats in block:
        mean, variance, scale, shift = (np.asarray(stat, np.float64) for stat in stats)
        factor = scale / np.sqrt(variance + EPSILON)
        total = total + (apply(conv, x) - mean) * factor + shift
        bias = None if conv.bias is None else np.abs(np.asarray(conv.bias, np.float64))
        kernel = np.abs(np.asarray(conv.kernel, np.float64))
        inner = apply(conv.replace(kernel=kernel, bias=bias), np.abs(x))
        scale_of_errors = scale_of_errors + (inner + np.abs(mean)) * np.abs(factor) + np.abs(shift)
    return total, scale_of_errors


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", CASES)
def test_a_folded_block_keeps_its_bound(name: str, dtype: str) -> None:
    taps, size, groups = CASES[name]
    unit = float(jnp.finfo(dtype).eps) / 2
    stored_error, total_error = [], []
    run = jax.jit(lambda conv, x: conv(x, precision="highest"))
    for seed in range(4):
        block = branches(taps, groups, seed, dtype)
        data = jnp.asarray(images(size, FEATURES, seed=seed)).astype(dtype)
        x = np.asarray(data, np.float64)
        expected, scale_of_errors = exactly(block, x)
        conv = folded(block)
        assert conv.kernel.dtype == conv.bias.dtype == dtype
        for errors, y in (
            (stored_error, apply(conv, x)),  # of the fold alone
            (total_error, np.asarray(run(jax.tree.map(jnp.asarray, conv), data), np.float64)),
        ):
            errors.append(float((np.abs(y - expected) / scale_of_errors).max() / unit))
    assert 0 < max(stored_error) <= C / 2, stored_error
    assert 0 < max(total_error) <= C, total_error
