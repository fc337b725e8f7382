"""Refusals are right: where the algebra refuses, least squares finds no convolution either.

For impulses at every pixel (and for zero) the output of a network of convolutions is
compared with the best single convolution of the same stride: every tap that any output can
reach is free, so every kernel size, padding and dilation is covered, and so is the bias.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence

import jax
import numpy as np
import pytest

from repjax.algebra import Conv, NotFusableError, add, compose, same_padding

from .reference import apply

Network = Callable[[np.ndarray], np.ndarray]


def residual(
    network: Network,
    sizes: Sequence[int],
    *,
    stride: int,
    spread: int = 1,
    low: Callable[[int], int] = lambda size: 0,
) -> float:
    """How far the best single 1-D convolution stays from `network`, relative to its kernel.

    Args:
        network: an affine map of (batch, pixels, 2).
        sizes: the one convolution must serve all of them.
        stride: of the single convolution.
        spread: its input dilation.
        low: its low padding, up to a constant, where that depends on the size.
    """
    rows, targets = [], []
    for size in sizes:
        impulses = np.eye(size * 2).reshape(-1, size, 2)
        x = np.concatenate([impulses, np.zeros((1, size, 2))])
        y = network(x)
        for image, outputs in zip(x, y, strict=True):
            for number, output in enumerate(outputs):
                tap = {
                    (pixel * spread - number * stride + low(size), channel): image[pixel, channel]
                    for pixel, channel in zip(*image.nonzero(), strict=True)
                }
                rows.append(tap)
                targets.append(output)
    taps = sorted(set(itertools.chain(*rows)))
    design = np.ones((len(rows), len(taps) + 1))
    for row, tap in zip(design, rows, strict=True):
        row[:-1] = [tap.get(name, 0.0) for name in taps]
    wanted = np.array(targets)
    solution = np.linalg.lstsq(design, wanted, rcond=None)[0]
    return float(np.abs(design @ solution - wanted).max() / max(np.abs(wanted).max(), 1e-300))


def accepted(verb: Callable[..., Conv], *convs: Conv, size: int | None) -> bool:
    try:
        jax.eval_shape(lambda *convs: verb(*convs, size=size), *convs)
    except NotFusableError:
        return False
    return True


def conv(random: np.random.Generator, taps: int, *, bias: bool = False, **geometry: object) -> Conv:
    kernel = random.normal(size=(taps, 2, 2))
    return Conv(kernel, random.normal(size=2) if bias else None, **geometry)


CLEARLY = 1e-3

REFUSED_CHAINS = {
    "zero padding between two 3-tap kernels": ((3, {"padding": 1}), (3, {"padding": 1})),
    "one padded pixel, on the high side": ((2, {}), (2, {"padding": [(0, 1)]})),
    "a crop, then padding": ((1, {"padding": [(-1, 0)]}), (1, {"padding": [(1, 0)]})),
    "bias of a pointwise meets padding": ((1, {"bias": True}), (3, {"padding": 1})),
    "bias meets padding after full padding": (
        (3, {"bias": True, "padding": 2}),
        (3, {"padding": 1}),
    ),
    "strided, then padded": ((3, {"strides": 2}), (3, {"padding": 1})),
    "bias meets a dilated input": ((1, {"bias": True}), (2, {"input_dilation": 2})),
    "dilated taps cross the border": ((2, {"dilation": 3}), (2, {"padding": [(1, 0)]})),
}


@pytest.mark.parametrize("name", REFUSED_CHAINS)
@pytest.mark.parametrize("size", [9, None])
def test_a_refused_chain_is_no_convolution(name: str, size: int | None) -> None:
    random = np.random.default_rng(0)
    first, second = (conv(random, taps, **geometry) for taps, geometry in REFUSED_CHAINS[name])
    assert not accepted(compose, first, second, size=size)
    far = residual(
        lambda x: apply(second, apply(first, x)),
        [9],
        stride=first.strides[0] * second.strides[0],
        spread=first.input_dilation[0] * second.input_dilation[0],
    )
    assert far > CLEARLY


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("spread", [1, 2])
def test_a_dilated_input_after_a_stride_is_no_convolution(stride: int, spread: int) -> None:
    random = np.random.default_rng(0)
    first, second = conv(random, 1, strides=2), conv(random, 2, input_dilation=2)
    assert not accepted(compose, first, second, size=9)
    network = lambda x: apply(second, apply(first, x))  # noqa: E731
    assert residual(network, [9], stride=stride, spread=spread) > CLEARLY


@pytest.mark.parametrize("stride", [1, 2])
def test_branches_of_different_strides_are_no_convolution(stride: int) -> None:
    random = np.random.default_rng(0)
    one = conv(random, 3, padding=1, strides=2)
    two = conv(random, 1, padding=[(0, -4)])
    assert one.output_size((9,)) == two.output_size((9,)) == (5,)
    assert not accepted(add, one, two, size=9)
    assert residual(lambda x: apply(one, x) + apply(two, x), [9], stride=stride) > CLEARLY


@pytest.mark.parametrize("spread", [1, 2])
def test_branches_of_different_input_dilation_are_no_convolution(spread: int) -> None:
    random = np.random.default_rng(0)
    one = conv(random, 3, padding=1, input_dilation=2)
    two = conv(random, 1, padding=4)
    assert one.output_size((9,)) == two.output_size((9,)) == (17,)
    assert not accepted(add, one, two, size=9)
    network = lambda x: apply(one, x) + apply(two, x)  # noqa: E731
    assert residual(network, [9], stride=1, spread=spread) > CLEARLY


def test_same_padding_with_stride_two_has_no_kernel_for_both_parities() -> None:
    random = np.random.default_rng(0)
    kernels = [random.normal(size=(taps, 2, 2)) for taps in (3, 1)]

    def network(x: np.ndarray) -> np.ndarray:
        size = x.shape[1:-1]
        return sum(
            apply(Conv(k, strides=2, padding=same_padding(size, k.shape[:1], strides=2)), x)
            for k in kernels
        )

    def low(size: int) -> int:
        return same_padding((size,), (3,), strides=2)[0][0]

    assert residual(network, [8, 9], stride=2, low=low) > CLEARLY
    for sizes in ([8, 10], [7, 9]):
        assert residual(network, sizes, stride=2, low=low) < 1e-12


def random_chain(random: np.random.Generator) -> tuple[Conv, Conv]:
    def geometry(taps: int, *, spread: bool) -> dict:
        return {
            "strides": int(random.choice([1, 1, 2])),
            "dilation": int(random.integers(1, 3)),
            "padding": [tuple(int(n) for n in random.integers(-1, 3, size=2))],
            "input_dilation": int(random.choice([1, 1, 2])) if spread else 1,
            "bias": bool(random.random() < 0.3),
        }

    taps1, taps2 = (int(n) for n in random.integers(1, 4, size=2))
    return (
        conv(random, taps1, **geometry(taps1, spread=True)),
        conv(random, taps2, **geometry(taps2, spread=False)),
    )


def test_random_chains_are_accepted_exactly_where_a_convolution_exists() -> None:
    random = np.random.default_rng(1)
    seen: Counter[bool] = Counter()
    for _ in range(80):
        first, second = random_chain(random)
        size = int(random.integers(11, 14))
        far = residual(
            lambda x, one=first, two=second: apply(two, apply(one, x)),
            [size],
            stride=first.strides[0] * second.strides[0],
            spread=first.input_dilation[0],
        )
        exists = accepted(compose, first, second, size=size)
        seen[exists] += 1
        assert far < 1e-10 if exists else far > CLEARLY, (first, second, size, far)
    assert min(seen[True], seen[False]) >= 20, seen
