"""Laws of chains: `compose` is one convolution after the other (rule R3)."""

from __future__ import annotations

from collections import Counter

import jax
import numpy as np
import pytest
from hypothesis import event, given, settings

from repjax.algebra import Conv, NotFusableError, add, compose, concatenate

from .folding import fold
from .reference import apply, assert_same, images
from .strategies import CHAINS, Case, chains


def leaves_nothing(conv: Conv, size: tuple[int, ...]) -> bool:
    """Whether nothing is left of an image of that size: then there is no chain to speak of."""
    return any(n == 0 for n in conv.output_size(size))


def test_compose_is_one_after_the_other() -> None:
    accepted: Counter[str] = Counter()
    drawn: Counter[str] = Counter()

    @settings(max_examples=250)
    @given(chains())
    def law(case: Case) -> None:
        first, second = case.convs
        drawn[case.kind] += 1
        try:
            merged = fold(lambda one, two: compose(one, two, size=case.size), first, second)
        except NotFusableError:
            return
        accepted[case.kind] += 1
        accepted[f"{first.dims}-D"] += 1
        if first.bias is not None and 1 < second.groups < second.features:
            accepted["bias through groups"] += 1
        accepted["size unknown" if case.size is None else "size known"] += 1
        event(case.kind)
        for size in case.sizes:
            if case.size is None and leaves_nothing(first, size):
                continue
            x = images(size, first.in_features)
            assert_same(apply(merged, x), apply(second, apply(first, x)), case)

    law()
    for kind in CHAINS[:-1]:
        assert accepted[kind] >= 0.7 * drawn[kind] > 0, (kind, accepted, drawn)
    for part in ("0-D", "1-D", "2-D", "3-D", "bias through groups", "size unknown", "size known"):
        assert accepted[part] >= 5, accepted


def test_what_is_legal_for_every_size_is_legal_for_each() -> None:
    seen: Counter[str] = Counter()

    @given(chains())
    def law(case: Case) -> None:
        def legal(size: tuple[int, ...] | None) -> bool:
            try:
                jax.eval_shape(lambda one, two: compose(one, two, size=size), *case.convs)
            except NotFusableError:
                return False
            return True

        for size in case.sizes:
            if legal(None) and not leaves_nothing(case.convs[0], size):
                seen["legal"] += 1
                assert legal(size), case

    law()
    assert seen["legal"] > 0


def test_an_image_of_no_pixels_is_refused_when_padded() -> None:
    valid, padded = Conv(np.ones((3, 1, 1)), padding=[(-1, 2)]), Conv(np.ones((1, 1, 1)), padding=2)
    x = images((1,), 1)
    assert apply(padded, apply(valid.replace(dilation=2), x)).shape == (2, 4, 1)
    with pytest.raises(NotFusableError, match="axis 0: padding of an image of no pixels"):
        compose(valid.replace(dilation=2), padded, size=1)


def bias_free(dims: int, inputs: int, outputs: int, seed: int, **geometry: object) -> Conv:
    random = np.random.default_rng(seed)
    taps = (2,) * dims
    return Conv(random.normal(size=(*taps, inputs, outputs)), **geometry)


def test_composition_is_associative() -> None:
    convs = [bias_free(2, 2, 3, 0, padding=1), bias_free(2, 3, 2, 1, strides=2)]
    third = bias_free(2, 2, 4, 2, dilation=2)
    one_two = fold(compose, *convs)
    two_three = fold(compose, convs[1], third)
    left, right = fold(compose, one_two, third), fold(compose, convs[0], two_three)
    assert left.axes == right.axes
    assert_same(np.asarray(left.kernel), np.asarray(right.kernel))


def test_composition_distributes_over_sums_and_stacks() -> None:
    first = bias_free(1, 2, 3, 0, padding=2)
    parts = [bias_free(1, 3, 4, seed, padding=[(0, 0)], dilation=2) for seed in (1, 2)]
    for verb in (add, concatenate):
        together = fold(compose, first, fold(verb, *parts))
        apart = fold(verb, *[fold(compose, first, part) for part in parts])
        assert together.axes == apart.axes
        assert_same(np.asarray(together.kernel), np.asarray(apart.kernel))
    before = [bias_free(1, 2, 3, seed, padding=1) for seed in (1, 2)]
    after = bias_free(1, 3, 4, 3)
    together = fold(compose, fold(add, *before), after)
    apart = fold(add, *[fold(compose, part, after) for part in before])
    assert_same(np.asarray(together.kernel), np.asarray(apart.kernel))


def test_a_common_factor_of_groups_stays() -> None:
    random = np.random.default_rng(0)
    first = Conv(random.normal(size=(3, 2, 12)), groups=6)
    second = Conv(random.normal(size=(1, 3, 8)), groups=4)
    merged = fold(compose, first, second)
    assert (merged.groups, merged.kernel.shape) == (2, (3, 6, 8))
    x = images((5,), 12)
    assert_same(apply(merged, x), apply(second, apply(first, x)))
