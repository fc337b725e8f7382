"""One map, written differently: `embed`, `regroup`, and the constructors built of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from repjax.algebra import (
    Conv,
    NotFusableError,
    average_pool,
    average_pool_kernel,
    batch_norm,
    channel_affine,
    embed,
    identity,
    identity_kernel,
    pad_kernel,
    regroup,
)

from .folding import fold
from .reference import apply, assert_same, images
from .strategies import conv


@given(conv(), st.data())
def test_embed_keeps_the_map(one: Conv, data: st.DataObject) -> None:
    dilation, low, taps = [], [], []
    for axis in one.axes:
        divisors = [n for n in range(1, axis.dilation + 1) if axis.dilation % n == 0]
        step = data.draw(st.sampled_from(divisors if axis.taps > 1 else [1, 2, 3]))
        before, after = data.draw(st.integers(0, 2)), data.draw(st.integers(0, 2))
        dilation.append(step)
        low.append(axis.low + before * step)
        taps.append((axis.last - axis.first) // step + 1 + before + after)
    other = fold(lambda conv: embed(conv, taps, low=low, dilation=dilation), one)
    assert other.kernel_size == tuple(taps)
    assert [pair[0] for pair in other.padding] == low
    assert one.dims == 0 or other.dilation == tuple(dilation)
    x = images((6,) * one.dims, one.in_features)
    assert_same(apply(other, x), apply(one, x), (one, other))


@pytest.mark.parametrize(
    ("taps", "low", "dilation"), [(5, 1, 1), (3, 2, 1), (4, 2, 1), (3, 3, 2), (3, 2, 3), (5, 3, 2)]
)
def test_embed_refuses_a_lattice_that_misses_a_tap(taps: int, low: int, dilation: int) -> None:
    one = Conv(np.ones((3, 1, 1)), padding=2, dilation=2)  # taps at -2, 0, 2
    held = {number * dilation - low for number in range(taps)}
    assert not {-2, 0, 2} <= held
    with pytest.raises(NotFusableError, match=f"axis 0 .* whole numbers from 0 to {taps - 1}"):
        embed(one, taps, low=low, dilation=dilation)


@given(conv(), st.data())
def test_regroup_keeps_the_map(one: Conv, data: st.DataObject) -> None:
    divisors = [n for n in range(1, one.groups + 1) if one.groups % n == 0]
    groups = data.draw(st.sampled_from(divisors))
    other = fold(lambda conv: regroup(conv, groups), one)
    assert other.groups == groups
    assert other.in_features == one.in_features
    x = images((5,) * one.dims, one.in_features)
    assert_same(apply(other, x), apply(one, x), (one, groups))


@pytest.mark.parametrize("groups", [0, 4, 12])
def test_regroup_refuses_more_groups_or_no_divisor(groups: int) -> None:
    with pytest.raises(NotFusableError, match=f"with {groups} groups"):
        regroup(Conv(np.ones((1, 2, 12)), groups=6), groups)


@pytest.mark.parametrize("dims", [0, 1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_an_identity_kernel_is_the_identity(dims: int, groups: int) -> None:
    taps = (3, 4, 5)[:dims]
    kernel = identity_kernel(taps, 6, groups=groups, dtype="float64")
    padding = [((n - 1) // 2, n - 1 - (n - 1) // 2) for n in taps]
    x = images((4, 3, 2)[:dims], 6)
    assert_same(apply(Conv(kernel, padding=padding, groups=groups), x), x)
    assert_same(apply(identity(6, dims=dims), x), x)


def test_an_identity_on_another_tap_shifts() -> None:
    x = images((6,), 2)
    shifted = apply(Conv(identity_kernel((3,), 2, tap=(2,), dtype="float64")), x)
    assert_same(shifted, x[:, 2:])
    with pytest.raises(NotFusableError):
        identity_kernel((3,), 2, tap=(3,))


def test_pad_kernel_surrounds_with_zeros() -> None:
    kernel = np.arange(1.0, 7.0).reshape(1, 3, 2, 1)
    padded = np.asarray(pad_kernel(kernel, (3, 5)))
    assert padded.shape == (3, 5, 2, 1)
    assert_same(padded[1:2, 1:4], kernel)
    assert padded.sum() == kernel.sum()
    placed = np.asarray(pad_kernel(kernel, (2, 4), low=(1, 0)))
    assert_same(placed[1:2, 0:3], kernel)
    with pytest.raises(NotFusableError, match="half a pixel"):
        pad_kernel(kernel, (2, 5))
    with pytest.raises(NotFusableError, match="whole numbers"):
        pad_kernel(kernel, (1, 1))


@pytest.mark.parametrize("strides", [1, 2])
def test_an_average_pool_counts_its_padding(strides: int) -> None:
    x = images((5, 4), 3)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 0), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 2), axis=(1, 2))
    expected = windows.mean(axis=(-2, -1))[:, ::strides, ::strides]
    geometry = {"strides": strides, "padding": [(1, 1), (1, 0)]}
    pool = average_pool((3, 2), 3, dtype="float64", **geometry)
    assert_same(apply(pool, x), expected)
    dense = Conv(average_pool_kernel((3, 2), 3, dtype="float64"), **geometry)
    assert_same(apply(dense, x), expected)


@pytest.mark.parametrize("dims", [0, 2])
@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("shifted", [True, False])
def test_batch_norm_and_affine_are_their_formulas(dims: int, scaled: bool, shifted: bool) -> None:
    random = np.random.default_rng(0)
    mean, var, scale, bias = random.normal(size=(4, 5))
    scale, bias = (scale if scaled else None), (bias if shifted else None)
    x = images((3,) * dims, 5)
    found = batch_norm(mean, var**2, scale, bias, epsilon=1e-3, dims=dims)
    expected = (x - mean) / np.sqrt(var**2 + 1e-3) * (1.0 if scale is None else scale)
    assert_same(apply(found, x), expected + (0.0 if bias is None else bias))
    if scaled or shifted:
        affine = channel_affine(scale, bias, dims=dims)
        expected = x * (1.0 if scale is None else scale) + (0.0 if bias is None else bias)
        assert_same(apply(affine, x), expected)
    else:
        with pytest.raises(ValueError, match="scale or a shift"):
            channel_affine(dims=dims)
