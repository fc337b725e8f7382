"""Cases that can be checked by hand, each with its numbers written out."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from repjax.algebra import (
    Conv,
    NotFusableError,
    add,
    average_pool,
    batch_norm,
    channel_affine,
    compose,
    embed,
    identity,
    identity_kernel,
    same_padding,
)

from .reference import apply


def line(*taps: float, bias: float | None = None, **geometry: object) -> Conv:
    """A 1-D convolution of one channel."""
    kernel = np.array(taps, np.float64).reshape(-1, 1, 1)
    return Conv(kernel, None if bias is None else np.array([bias]), **geometry)


def taps(conv: Conv) -> list:
    """The taps of a convolution of one channel."""
    return np.asarray(conv.kernel)[..., 0, 0].tolist()


def on(conv: Conv, *pixels: float) -> list[float]:
    """The output for an image of one channel."""
    return apply(conv, np.array(pixels, np.float64).reshape(1, -1, 1))[0, :, 0].tolist()


def test_batch_norm_of_unit_factor_only_moves_the_bias() -> None:
    norm = batch_norm(np.array([5.0]), np.array([8.0]), np.array([3.0]), np.array([0.5]), epsilon=1)
    merged = compose(Conv(np.full((3, 3, 1, 1), 7.0), np.array([2.0]), padding=1), norm)
    assert taps(merged) == [[7.0] * 3] * 3
    assert np.asarray(merged.bias).tolist() == [0.5 + 2.0 - 5.0]


def test_batch_norm_without_scale_and_bias() -> None:
    norm = batch_norm(np.array([5.0]), np.array([3.0]), epsilon=1)
    merged = compose(Conv(np.full((1, 1, 1, 1), 4.0), np.array([2.0])), norm)
    assert taps(merged) == [[4.0 * 0.5]]
    assert np.asarray(merged.bias).tolist() == [0.5 * (2.0 - 5.0)]


def test_identity_in_two_groups_and_depthwise() -> None:
    centre = np.asarray(identity_kernel((3, 3), 4, groups=2))[1, 1]
    assert {(int(o), int(i)) for i, o in np.argwhere(centre)} == {(0, 0), (1, 1), (2, 0), (3, 1)}
    assert np.asarray(identity_kernel((3, 3), 4, groups=2)).sum() == 4
    assert identity_kernel((3, 3), 4, groups=4).shape == (3, 3, 1, 4)


def test_asymmetric_block_of_ones() -> None:
    square = Conv(np.ones((3, 3, 1, 1)), padding=1)
    row = Conv(np.ones((1, 3, 1, 1)), padding=[(0, 0), (1, 1)])
    column = Conv(np.ones((3, 1, 1, 1)), padding=[(1, 1), (0, 0)])
    assert taps(add(square, row, column)) == [[1, 2, 1], [2, 3, 2], [1, 2, 1]]


def test_dilated_taps_become_sparse() -> None:
    assert taps(embed(line(1, 2, 3, padding=2, dilation=2), 5, low=2)) == [1, 0, 2, 0, 3]
    wide = add(line(1, 2, 3, padding=4, dilation=4), line(1, 1, padding=[(0, 1)]))
    assert taps(wide) == [1, 0, 0, 0, 3, 1, 0, 0, 3]


def test_bias_at_the_border() -> None:
    first, second = line(1, bias=1), line(1, 1, 1, bias=0, padding=1)
    assert on(second, *on(first, 0, 0, 0)) == [2, 3, 2]
    with pytest.raises(NotFusableError, match="bias meets zero padding"):
        compose(first, second)
    # padded with the bias: the pointwise map runs over the padded image
    padded = line(1, bias=1, padding=1)
    merged = compose(padded, second.replace(padding=0))
    assert on(merged, 0, 0, 0) == [3, 3, 3]
    assert (taps(merged), merged.padding) == ([1, 1, 1], ((1, 1),))
    assert np.asarray(merged.bias).tolist() == [3]


@pytest.mark.parametrize(
    ("pixels", "pointwise", "fused"),
    [([0, 1, 2, 3], [0, 2], [1, 0, 0]), ([0, 1, 2, 3, 4], [0, 2, 4], [0, 1, 0])],
)
def test_parity_of_same_padding(pixels: list, pointwise: list, fused: list) -> None:
    size = (len(pixels),)
    one = line(1, strides=2, padding=same_padding(size, (1,), strides=2))
    three = line(0, 0, 0, strides=2, padding=same_padding(size, (3,), strides=2))
    assert on(one, *pixels) == pointwise
    merged = add(three, one, size=size)
    assert (taps(merged), merged.padding) == (fused, three.padding)
    assert on(merged, *pixels) == pointwise


@pytest.mark.parametrize(
    ("size", "taps", "strides", "dilation", "pair"),
    [
        (8, 3, 2, 1, (0, 1)),
        (9, 3, 2, 1, (1, 1)),
        (8, 4, 1, 1, (1, 2)),
        (8, 1, 2, 1, (0, 0)),
        (7, 3, 1, 2, (2, 2)),
        (10, 7, 4, 1, (2, 3)),
        (5, 1, 3, 1, (0, 0)),
    ],
)
def test_same_padding(
    size: int, taps: int, strides: int, dilation: int, pair: tuple[int, int]
) -> None:
    assert same_padding((size,), (taps,), strides=strides, dilation=dilation) == (pair,)


@pytest.mark.parametrize(("padding", "tap"), [((1, 2), 1), ((2, 1), 2)])
def test_pointwise_in_an_even_kernel(padding: tuple[int, int], tap: int) -> None:
    merged = add(line(0, 0, 0, 0, padding=[padding]), line(1))
    assert taps(merged) == [float(number == tap) for number in range(4)]
    assert merged.padding == (padding,)


def test_average_pool_at_its_own_channel() -> None:
    pool = average_pool((3, 3), 2, padding=1, dtype=jnp.float64)
    merged = add(pool, Conv(np.zeros((3, 3, 2, 2)), padding=1))
    assert (np.asarray(merged.kernel) == np.eye(2) / 9).all()
    corner = apply(merged, np.ones((1, 4, 4, 2)))[0, 0, 0]
    np.testing.assert_allclose(corner, [4 / 9, 4 / 9], rtol=1e-15)


def test_mixer_with_a_layer_scale() -> None:
    random = np.random.default_rng(0)
    mixer = Conv(random.normal(size=(3, 3, 1, 2)), random.normal(size=2), padding=1, groups=2)
    minus = mixer.replace(kernel=-mixer.kernel, bias=-mixer.bias)
    other = Conv(random.normal(size=(1, 1, 1, 2)), groups=2)
    one = identity(2, dtype=jnp.float64)
    centre = np.asarray(identity_kernel((3, 3), 2, groups=2))
    same = add(one, compose(add(mixer, minus), channel_affine(np.array([0.3, -2.0]))))
    still = add(one, compose(add(mixer, other), channel_affine(np.zeros(2))))
    for merged in (same, still):
        assert (np.asarray(merged.kernel) == centre).all()
        assert (np.asarray(merged.bias) == 0).all()


def test_a_norm_after_the_sum_of_nothing_but_the_input() -> None:
    nothing = [Conv(np.zeros((n, n, 2, 2)), padding=n // 2) for n in (3, 1)]
    stats = np.array([[1.0, 2.0], [3.0, 8.0], [4.0, -3.0], [0.0, 1.0]])  # factors 2 and -1
    merged = compose(add(*nothing, identity(2, dtype=jnp.float64)), batch_norm(*stats, epsilon=1))
    expected = np.zeros((3, 3, 2, 2))
    expected[1, 1] = np.diag([2.0, -1.0])
    assert (np.asarray(merged.kernel) == expected).all()
    assert np.asarray(merged.bias).tolist() == [0 - 1.0 * 2, 1 + 2.0]


def test_extent_and_stride_of_a_composition() -> None:
    three = line(1, 1, 1)
    assert taps(compose(three, three)) == [1, 2, 3, 2, 1]
    strided = compose(three.replace(strides=2), three)
    assert taps(strided) == [1, 1, 2, 1, 2, 1, 1]
    assert strided.strides == (2,)


def test_scale_after_a_grouped_transposed_convolution() -> None:
    scale = np.array([1.0, 10.0, 100.0, 1000.0])
    up = Conv(np.ones((2, 1, 4)), padding=1, input_dilation=2, groups=2)
    merged = compose(up, channel_affine(scale, dims=1))
    assert (merged.groups, merged.input_dilation) == (2, (2,))
    assert (np.asarray(merged.kernel) == scale).all()  # output (g, j) takes scale[2 g + j]


def test_pointwise_then_square_in_two_groups() -> None:
    inner = np.array([[1.0, 2.0, 5.0, 6.0], [3.0, 4.0, 7.0, 8.0]]).reshape(1, 1, 2, 4)
    outer = np.broadcast_to(np.array([[1.0, 1.0], [10.0, 10.0]]), (3, 3, 2, 2))
    merged = compose(Conv(inner, groups=2), Conv(outer, padding=1, groups=2))
    # output g sums m of its group: inner[i, m] * outer[m]
    assert merged.groups == 2
    assert np.asarray(merged.kernel)[0, 2].tolist() == [[21.0, 65.0], [43.0, 87.0]]


def test_a_bias_goes_through_each_group() -> None:
    first = Conv(np.zeros((1, 4)), np.array([1.0, 2.0, 3.0, 4.0]))
    second = Conv(np.array([[1.0, 10.0, 1.0, 0.0], [0.0, 1.0, 1.0, 5.0]]), np.ones(4), groups=2)
    # group 0 sees (1, 2), group 1 sees (3, 4)
    assert np.asarray(compose(first, second).bias).tolist() == [1 + 1, 12 + 1, 7 + 1, 20 + 1]


def test_a_bottleneck_grows_when_merged() -> None:
    down, up = Conv(np.ones((1, 1, 64, 16))), Conv(np.ones((3, 3, 16, 64)), padding=1)
    assert (down.kernel.size, up.kernel.size) == (1024, 9216)
    assert compose(down, up).kernel.size == 36_864


def test_a_large_kernel_of_thin_ones_grows_when_merged() -> None:
    thin = [
        Conv(np.ones((a, b, 1, 1)), padding=[(a // 2, a // 2), (b // 2, b // 2)])
        for a, b in ((51, 5), (5, 51), (5, 5))
    ]
    assert sum(conv.kernel.size for conv in thin) == 535
    merged = add(*thin)
    assert merged.kernel.size == 2601
    assert np.asarray(merged.kernel).sum() == 535
