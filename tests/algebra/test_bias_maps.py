"""Laws of bias maps: a bias that meets zero padding becomes a kernel of one input channel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import export

from repjax.algebra import (
    Conv,
    NotFusableError,
    add,
    bias_map,
    channel_affine,
    compose,
    compose_with_bias_map,
    concatenate,
)

from .folding import fold, operations
from .reference import apply, assert_same, images, magnitude
from .strategies import CHAINS, Case, chains, conv

FORBIDDEN = {"conv_general_dilated", "dot_general", "reduce_window_sum", "cumsum"}


def of_ones(one: Conv, size: tuple[int, ...]) -> np.ndarray:
    return fold(lambda one: one.of_ones(size), one)


def with_map(first: Conv, second: Conv, size: tuple[int, ...] | None = None) -> tuple:
    return fold(lambda *both: compose_with_bias_map(*both, size=size), first, second)


def random_conv(seed: int, *shape: int, bias: bool = True, **geometry: object) -> Conv:
    random = np.random.default_rng(seed)
    kernel = random.normal(size=shape)
    return Conv(kernel, random.normal(size=shape[-1]) if bias else None, **geometry)


def biased(one: Conv, seed: int = 7) -> Conv:
    return one.replace(bias=np.random.default_rng(seed).normal(size=one.features))


# What an image of ones becomes.


def test_of_ones_is_the_convolution_of_an_image_of_ones() -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=200)
    @given(conv(inputs=1), st.lists(st.integers(1, 11), min_size=3, max_size=3))
    def law(one: Conv, size: list[int]) -> None:
        sizes = tuple(size[: one.dims])
        found, expected = of_ones(one, sizes), apply(one, np.ones((1, *sizes, 1)))[0]
        assert_same(found, expected, (one, sizes))
        taps = zip(one.kernel_size, one.dilation, sizes, strict=True)
        seen[f"{one.dims}-D"] += 1
        seen["no outputs"] += not found.size
        seen["smaller than the kernel"] += any((k - 1) * d >= n for k, d, n in taps)
        seen["input dilation"] += any(n > 1 for n in one.input_dilation)
        seen["crops"] += any(n < 0 for pair in one.padding for n in pair)
        seen["even"] += any(k % 2 == 0 for k in one.kernel_size)
        seen["strides"] += any(n > 1 for n in one.strides)

    law()
    assert len(seen) == 10
    assert min(seen.values()) >= 10, seen


def test_of_ones_runs_no_convolution_and_no_product() -> None:
    for one in (
        random_conv(0, 3, 3, 1, 4, padding=1, strides=2),
        random_conv(0, 4, 3, 2, 1, 4, padding=[(3, 0), (1, 2), (-1, 2)], dilation=2),
        random_conv(0, 4, 1, 4, padding=2, input_dilation=3),
    ):
        names = operations(lambda one: one.of_ones(9), one)
        assert not FORBIDDEN & set(names), names


@pytest.mark.parametrize("input_dilation", [1, 2])
def test_the_program_of_of_ones_stays_small(input_dilation: int) -> None:
    one = random_conv(0, 31, 31, 1, 2, padding=15, input_dilation=input_dilation)
    lengths = {len(operations(lambda one, n=n: one.of_ones(n), one)) for n in (40, 41, 224, 448)}
    assert max(lengths) <= 40, lengths


def test_of_ones_refuses_what_it_does_not_mean() -> None:
    with pytest.raises(ValueError, match="expected one input channel and 1 sizes"):
        random_conv(0, 3, 2, 4).of_ones(5)
    with pytest.raises(ValueError, match="expected one input channel and 2 sizes"):
        random_conv(0, 3, 3, 1, 4).of_ones((5,))
    with pytest.raises(ValueError, match=r"a bias has shape \(features,\); found \(2, 3\)"):
        bias_map(np.ones((2, 3)))


# Chains of two.


def test_the_convolution_and_the_map_are_one_after_the_other() -> None:
    seen: Counter[str] = Counter()

    def refuses(first: Conv, second: Conv, size: tuple[int, ...] | None) -> bool:
        try:
            jax.eval_shape(lambda *both: compose(*both, size=size), first, second)
        except NotFusableError:
            return True
        return False

    @settings(max_examples=180)
    @given(chains())
    def law(case: Case) -> None:
        first, second = biased(case.convs[0]), case.convs[1]
        try:
            merged, border = with_map(first, second, case.size)
        except NotFusableError:
            assert refuses(first.replace(bias=None), second, case.size), case
            return
        assert (border is None) != refuses(first, second, case.size), case
        seen["no map" if border is None else f"{first.dims}-D"] += 1
        if border is not None:
            seen[case.kind] += 1
            seen["groups"] += second.groups > 1
            seen["size unknown" if case.size is None else "size known"] += 1
            seen["upsampled and padded"] += any(
                k > 1 and max(pair) > 0
                for k, pair in zip(second.input_dilation, second.padding, strict=True)
            )
        for size in case.sizes:
            middle = first.output_size(size)
            if case.size is None and 0 in middle:
                continue
            x = images(size, first.in_features)
            found = apply(merged, x)
            if border is not None:
                found = found + of_ones(border, middle)
            assert_same(found, apply(second, apply(first, x)), case)

    law()
    for part in ("1-D", "2-D", "3-D", "groups", "size unknown", "size known", "no map"):
        assert seen[part] >= 5, seen
    for kind in set(CHAINS) - {"inner padding is none"}:
        assert seen[kind] >= 3, seen


@pytest.mark.parametrize("padding", [(2, 0), (0, 3), (1, -1), (-1, 2), (4, 4)])
def test_every_padding_of_the_second(padding: tuple[int, int]) -> None:
    first = random_conv(0, 1, 2, 4)
    for seed, (taps, stride, dilation, spread) in enumerate(np.ndindex(4, 2, 2, 3)):
        second = random_conv(
            seed,
            *(taps + 1, 2, 6),
            strides=stride + 1,
            dilation=dilation + 1,
            input_dilation=spread + 1,
            padding=[padding],
            groups=2,
        )
        merged, border = with_map(first, second)
        assert merged.bias is not None
        for size in ((1,), (2,), (7,), (8,)):
            x = images(size, 2)
            expected = apply(second, apply(first, x))
            rest = 0 if border is None else of_ones(border, size)
            assert_same(apply(merged, x) + rest, expected, second)


def test_the_map_is_the_same_array_for_every_size() -> None:
    first = random_conv(0, 3, 3, 2, 4, padding=2, dilation=2)
    second = random_conv(1, 4, 3, 4, 3, padding=[(1, 0), (0, 1)], strides=(1, 2))
    with pytest.raises(NotFusableError):  # the kernel of `first` is lost at this border
        compose_with_bias_map(first, second)
    first = first.replace(padding=4)
    _, expected = with_map(first, second)
    for size in ((5, 6), (6, 5), (32, 31)):
        _, border = with_map(first, second, size)
        assert border.axes == expected.axes
        assert np.array_equal(border.kernel, expected.kernel)


# Longer chains, sums and stacks.

CHAINS_OF_THREE: dict[str, Callable[[], tuple[Conv, Conv, Conv]]] = {
    "scale and shift, a pad, a padded stem": lambda: (
        Conv(np.full((1, 1, 1, 3), 2.0), np.arange(1.0, 4.0), groups=3),
        Conv(np.ones((1, 1, 1, 3)), padding=[(1, 2), (0, 3)], groups=3),
        random_conv(1, 5, 4, 3, 4, padding=2, strides=2),
    ),
    "two pointwise, then a padded 3x3": lambda: (
        random_conv(0, 1, 1, 3, 4),
        random_conv(1, 1, 1, 2, 6, groups=2),
        random_conv(2, 3, 3, 2, 6, padding=1, groups=3),
    ),
    "a shift, a padded 3x3, a crop": lambda: (
        channel_affine(np.ones(3), np.arange(1.0, 4.0)),
        random_conv(1, 3, 3, 3, 4, padding=1, dilation=(1, 2)),
        random_conv(2, 2, 1, 4, 3, padding=[(-1, 0), (0, -2)], strides=(1, 2)),
    ),
    "a shift, a padded 3x3, a transposed convolution": lambda: (
        channel_affine(np.ones(3), np.arange(1.0, 4.0)),
        random_conv(1, 3, 3, 3, 4, padding=1),
        random_conv(2, 2, 2, 4, 3, input_dilation=2, padding=1),
    ),
    "a shift between two pads": lambda: (
        Conv(np.ones((1, 1, 1, 3)), padding=1, groups=3),
        channel_affine(np.ones(3), np.arange(1.0, 4.0)),
        random_conv(2, 3, 3, 3, 4, padding=[(1, 0), (2, 1)], strides=2),
    ),
}


@pytest.mark.parametrize("name", CHAINS_OF_THREE)
def test_chains_of_three(name: str) -> None:
    first, second, third = CHAINS_OF_THREE[name]()
    merged, border = with_map(first, second)
    merged, last = with_map(merged, third)
    maps = 0
    for size in ((1, 1), (2, 7), (8, 8), (9, 4)):
        one = first.output_size(size)
        two = second.output_size(one)
        if 0 in two:
            continue
        x = images(size, first.in_features)
        found = apply(merged, x)
        if border is not None:
            through = fold(compose, border, third.replace(bias=None))
            found, maps = found + of_ones(through, one), maps + 1
        if last is not None:
            found, maps = found + of_ones(last, two), maps + 1
        assert_same(found, apply(third, apply(second, apply(first, x))), size)
    assert maps


def test_the_map_of_a_sum_is_the_sum_of_the_maps() -> None:
    first = random_conv(0, 1, 1, 2, 6)
    parts = [
        random_conv(1, 3, 3, 6, 4, padding=1),
        random_conv(2, 3, 2, 3, 4, padding=[(2, 2), (1, 0)], dilation=(2, 1), groups=2),
        random_conv(4, 5, 5, 3, 4, padding=2, groups=2),
        random_conv(3, 1, 1, 6, 4),
    ]
    for verb in (add, concatenate):
        pairs = [with_map(first, part) for part in parts]
        maps = [border for _, border in pairs if border is not None]
        _, together = with_map(first, fold(verb, *parts[:3]))
        assert fold(verb, *maps).axes == together.axes
        assert_same(np.asarray(fold(verb, *maps).kernel), np.asarray(together.kernel))
        assert pairs[3][1] is None  # its bias is in the convolution, so its map is zero
        border = fold(verb, *maps, bias_map(np.zeros(4)))
        merged = fold(verb, *(merged for merged, _ in pairs))
        join = sum if verb is add else lambda values: np.concatenate(list(values), -1)
        for size in ((1, 2), (5, 6)):
            x = images(size, 2)
            expected = join(apply(part, apply(first, x)) for part in parts)
            assert_same(apply(merged, x) + of_ones(border, size), expected, size)


# In programs.


def pair() -> tuple[Conv, Conv]:
    """A pointwise convolution with bias, and a grouped, padded one."""
    second = random_conv(1, 3, 4, 2, 6, padding=[(1, 2), (2, 1)], strides=(2, 1), groups=2)
    return random_conv(0, 1, 1, 2, 4), second


def native(first: Conv, second: Conv, x: jax.Array) -> jax.Array:
    return second(first(x))


def bordered(first: Conv, second: Conv, x: jax.Array) -> jax.Array:
    merged, border = compose_with_bias_map(first, second)
    return merged(x) + border.of_ones(first.output_size(x.shape[1:3]))


def test_values_and_gradients_are_those_of_the_network() -> None:
    x = jnp.asarray(images((5, 6), 2))
    first, second = pair()
    weights = jnp.asarray(images(second.output_size((5, 6)), 6, seed=1))

    def loss(network: object) -> object:
        def function(*args: object) -> tuple:
            y = network(*args)
            return (y * weights).sum() + (y**2).sum(), y

        return jax.jit(jax.value_and_grad(function, argnums=(0, 1, 2), has_aux=True))

    expected, found = (loss(network)(first, second, x) for network in (native, bordered))
    assert jax.tree.structure(expected) == jax.tree.structure(found)
    for one, two in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert_same(np.asarray(one), np.asarray(two))


def test_vmap_serves_an_ensemble() -> None:
    x = jnp.asarray(images((5, 6), 2))
    others = jax.tree.map(lambda leaf: leaf[::-1] * 2 + 1, pair())
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), pair(), others)
    found = jax.jit(jax.vmap(bordered, (0, 0, None)))(*stacked, x)
    for number, (first, second) in enumerate([pair(), others]):
        assert_same(np.asarray(found[number]), apply(second, apply(first, np.asarray(x))))


def test_the_native_two_convolutions_become_one() -> None:
    names = operations(bordered, *pair(), jnp.asarray(images((5, 6), 2)))
    assert names.count("conv_general_dilated") == 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_lower_precisions_stay_within_the_bound(dtype: str) -> None:
    first, second = (one.astype(dtype) for one in pair())
    x = jnp.asarray(images((5, 6), 2)).astype("float32")
    y = jax.jit(bordered)(first, second, x)
    assert y.dtype == "float32"
    exact = apply(second, apply(first, np.asarray(x, np.float64)))
    bound = magnitude(second, magnitude(first, np.asarray(x)))
    assert (np.abs(np.asarray(y) - exact) <= 8 * 2.0**-24 * bound).all()


def test_a_symbolic_size_takes_a_convolution() -> None:
    height, width = export.symbolic_shape("h, w")
    shape = jax.ShapeDtypeStruct((1, height, width, 2), "float64")
    first, second = pair()
    exported = export.export(jax.jit(lambda x: bordered(first, second, x)))(shape)
    for size in ((5, 6), (2, 1)):
        x = images(size, 2, batch=1)
        assert_same(np.asarray(exported.call(x)), apply(second, apply(first, x)))


# Refusals name the way out.


def test_compose_names_the_way_out_where_there_is_one() -> None:
    first, second = pair()
    with pytest.raises(NotFusableError, match=r"bias meets zero padding.*compose_with_bias_map"):
        compose(first, second)
    spatial = random_conv(0, 3, 3, 2, 4, padding=1)
    for verb in (compose, compose_with_bias_map):
        with pytest.raises(NotFusableError, match="between two spatial kernels") as refused:
            verb(spatial, second)
        assert "compose_with_bias_map" not in str(refused.value)
    for wrong, reason in (
        (first.replace(strides=2), "strided, then dilated input"),
        (random_conv(0, 1, 1, 2, 6), "channels do not fit"),
        (random_conv(0, 1, 2, 4), "numbers of spatial axes differ"),
    ):
        with pytest.raises(NotFusableError, match=reason):
            compose_with_bias_map(wrong, second.replace(input_dilation=2))
