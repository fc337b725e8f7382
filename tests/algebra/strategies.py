"""Random convolutions that often fit together, and the sizes to try them on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from repjax.algebra import Conv

CHANNELS = (4, 6, 12)


@dataclasses.dataclass(frozen=True)
class Case:
    """Convolutions, the size they are combined for (None: every one), and sizes to check."""

    convs: tuple[Conv, ...]
    size: tuple[int, ...] | None
    sizes: tuple[tuple[int, ...], ...]
    kind: str = ""


def _numbers(low: int, high: int) -> st.SearchStrategy[int]:
    return st.integers(low, high)


@st.composite
def _sizes(draw: st.DrawFn, dims: int) -> tuple[tuple[int, ...] | None, tuple]:
    largest = {0: 0, 1: 11, 2: 8, 3: 5}[dims]
    if draw(st.booleans()):
        size = tuple(draw(_numbers(1, largest)) for _ in range(dims))
        return size, (size,)
    first = [draw(_numbers(1, largest)) for _ in range(dims)]
    return None, tuple(tuple((n + more - 1) % largest + 1 for n in first) for more in (0, 1, 3, 4))


@st.composite
def _values(draw: st.DrawFn, shape: Sequence[int], bias: bool | None = None) -> dict:
    random = np.random.default_rng(draw(_numbers(0, 3)))
    bias = draw(st.booleans()) if bias is None else bias
    return {
        "kernel": random.normal(size=shape),
        "bias": random.normal(size=shape[-1]) if bias else None,
    }


def _common_groups(inputs: int, outputs: int) -> list[int]:
    return [n for n in range(1, min(inputs, outputs) + 1) if inputs % n == 0 == outputs % n]


@st.composite
def conv(draw: st.DrawFn, dims: int | None = None, inputs: int | None = None) -> Conv:
    """Any one convolution."""
    dims = draw(_numbers(0, 3)) if dims is None else dims
    inputs = draw(st.sampled_from(CHANNELS)) if inputs is None else inputs
    outputs = draw(st.sampled_from(CHANNELS))
    groups = draw(st.sampled_from(_common_groups(inputs, outputs)))
    taps = [draw(_numbers(1, 4 if dims < 3 else 2)) for _ in range(dims)]
    return Conv(
        **draw(_values((*taps, inputs // groups, outputs))),
        strides=[draw(_numbers(1, 3)) for _ in taps],
        padding=[(draw(_numbers(-1, 3)), draw(_numbers(-1, 3))) for _ in taps],
        dilation=[draw(_numbers(1, 3)) for _ in taps],
        input_dilation=[draw(st.sampled_from([1, 1, 1, 2, 3])) for _ in taps],
        groups=groups,
    )


@st.composite
def branches(draw: st.DrawFn, *, same_features: bool = True) -> Case:
    """Convolutions of one input; mostly with as many outputs.

    Low padding, taps and dilation are free; the high padding is drawn so that the numbers of
    outputs agree, for the known size or for all of them, or nearly so.
    """
    dims = draw(_numbers(0, 3))
    size, sizes = draw(_sizes(dims))
    inputs, outputs = draw(st.sampled_from(CHANNELS)), draw(st.sampled_from(CHANNELS))
    strides = [draw(st.sampled_from([1, 1, 2, 3])) for _ in range(dims)]
    spread = [draw(st.sampled_from([1, 1, 1, 2, 3])) for _ in range(dims)]
    excess = [draw(_numbers(-3, 3)) for _ in range(dims)]
    convs = []
    for _ in range(draw(_numbers(1, 3))):
        groups = draw(st.sampled_from(_common_groups(inputs, outputs)))
        taps = [draw(_numbers(1, 4 if dims < 3 else 2)) for _ in range(dims)]
        dilation = [draw(st.sampled_from([1, 1, 2, 3])) for _ in range(dims)]
        padding = []
        for axis in range(dims):
            low = draw(_numbers(-2, 3))
            high = excess[axis] + (taps[axis] - 1) * dilation[axis] + 1 - low
            slack = draw(st.sampled_from([0] * 6 + [1, 2]))
            padding.append((low, high + slack % strides[axis]))
        convs.append(
            Conv(
                **draw(_values((*taps, inputs // groups, outputs))),
                strides=strides,
                padding=padding,
                dilation=dilation,
                input_dilation=spread,
                groups=groups,
            )
        )
        if not same_features:
            outputs = draw(st.sampled_from(CHANNELS))
    return Case(tuple(convs), size, sizes)


CHAINS = ("inner padding is none", "pointwise first", "full padding first", "upsampled", "any")


@st.composite
def chains(draw: st.DrawFn) -> Case:
    """Two convolutions, one after the other, of the kinds that rule R3 allows, and others."""
    dims = draw(_numbers(0, 3))
    size, sizes = draw(_sizes(dims))
    kind = draw(st.sampled_from(CHAINS))
    inputs, middle, outputs = (draw(st.sampled_from(CHANNELS)) for _ in range(3))
    few = _numbers(1, 3 if dims < 3 else 2)
    step = st.sampled_from([1, 1, 2, 3])

    def each(strategy: st.SearchStrategy[int]) -> list[int]:
        return [draw(strategy) for _ in range(dims)]

    taps1, taps2 = each(few), each(few)
    one = {
        "strides": each(step),
        "dilation": each(step),
        "padding": list(zip(each(_numbers(-1, 3)), each(_numbers(-1, 3)), strict=True)),
        "input_dilation": each(st.sampled_from([1, 1, 1, 2])),
    }
    two = {"strides": each(step), "dilation": each(step)}
    two["padding"] = list(zip(each(_numbers(-1, 2)), each(_numbers(-1, 2)), strict=True))
    bias = None
    if kind == "inner padding is none":
        two["padding"] = list(zip(each(_numbers(-2, 0)), each(_numbers(-2, 0)), strict=True))
    elif kind == "pointwise first":
        taps1, bias = [1] * dims, False
        one["padding"], one["strides"] = [(0, 0)] * dims, [1] * dims
    elif kind == "full padding first":
        reach = [(taps - 1) * d for taps, d in zip(taps1, one["dilation"], strict=True)]
        one["padding"] = [(n, n) for n in reach]
        one["strides"], bias = [1] * dims, False
    elif kind == "upsampled":
        two["input_dilation"] = each(_numbers(1, 3))
        two["padding"] = list(zip(each(_numbers(-3, 0)), each(_numbers(-3, 0)), strict=True))
        one["strides"], bias = [1] * dims, False
    groups1 = draw(st.sampled_from(_common_groups(inputs, middle)))
    groups2 = draw(st.sampled_from(_common_groups(middle, outputs)))
    values1 = draw(_values((*taps1, inputs // groups1, middle), bias))
    values2 = draw(_values((*taps2, middle // groups2, outputs)))
    first = Conv(**values1, **one, groups=groups1)
    second = Conv(**values2, **two, groups=groups2)
    return Case((first, second), size, sizes, kind)
