"""Laws of parallel convolutions: `add` is the sum, `concatenate` the stack (rule R1)."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import event, given, settings

from repjax.algebra import Conv, NotFusableError, add, concatenate

from .folding import fold
from .reference import apply, assert_same, images
from .strategies import Case, branches, conv

EVERY_SIZE = range(1, 25)


def outputs_agree(case: Case) -> bool:
    """Whether the branches give as many outputs: for the known size, or for a long range."""
    one = case.convs[0]
    ranges = [EVERY_SIZE] * one.dims if case.size is None else [(n,) for n in case.size]
    return all(
        len({other.axes[axis].outputs(n) for other in case.convs}) == 1
        for axis, sizes in enumerate(ranges)
        for n in sizes
    )


def test_add_is_the_sum_or_the_outputs_differ() -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=120)
    @given(branches())
    def law(case: Case) -> None:
        try:
            merged = fold(lambda *convs: add(*convs, size=case.size), *case.convs)
        except NotFusableError:
            seen["refused"] += 1
            assert not outputs_agree(case), case
            return
        accepted = f"{case.convs[0].dims}-D, size {'unknown' if case.size is None else 'known'}"
        seen[accepted] += 1
        event(accepted)
        for size in case.sizes:
            x = images(size, case.convs[0].in_features)
            parts = [apply(part, x) for part in case.convs]
            assert_same(apply(merged, x), sum(parts[1:], parts[0]), case)

    law()
    assert_mostly_accepted(seen)


def test_concatenate_is_the_stack_or_the_outputs_differ() -> None:
    seen: Counter[str] = Counter()

    @given(branches(same_features=False))
    def law(case: Case) -> None:
        try:
            merged = fold(lambda *convs: concatenate(*convs, size=case.size), *case.convs)
        except NotFusableError:
            seen["refused"] += 1
            assert not outputs_agree(case), case
            return
        seen[f"{case.convs[0].dims}-D"] += 1
        for size in case.sizes:
            x = images(size, case.convs[0].in_features)
            expected = np.concatenate([apply(part, x) for part in case.convs], axis=-1)
            assert_same(apply(merged, x), expected, case)

    law()
    assert_mostly_accepted(seen)


def assert_mostly_accepted(seen: Counter[str]) -> None:
    """A law that is only ever refused proves nothing."""
    accepted = {name: count for name, count in seen.items() if name != "refused"}
    assert sum(accepted.values()) >= 0.6 * seen.total(), seen
    assert {name[:3] for name in accepted} == {"0-D", "1-D", "2-D", "3-D"}, seen


@settings(max_examples=30)
@given(branches())
def test_the_order_of_branches_does_not_matter(case: Case) -> None:
    try:
        merged = fold(lambda *convs: add(*convs, size=case.size), *case.convs)
    except NotFusableError:
        return
    turned = fold(lambda *convs: add(*convs, size=case.size), *case.convs[::-1])
    x = images(case.sizes[0], merged.in_features)
    assert_same(apply(turned, x), apply(merged, x), case)


@settings(max_examples=30)
@given(conv())
def test_add_is_linear_in_the_kernels(one: Conv) -> None:
    double = fold(lambda conv: add(conv, conv), one)
    x = images((5,) * one.dims, one.in_features)
    assert_same(apply(double, x), 2 * apply(one, x), one)
    minus = one.replace(kernel=-one.kernel, bias=None if one.bias is None else -one.bias)
    nothing = fold(add, one, minus)
    assert (apply(nothing, x) == 0).all()


def test_a_merged_kernel_is_the_smallest_that_holds_the_taps() -> None:
    wide = Conv(np.ones((3, 1, 1)), padding=6, dilation=6)
    merged = fold(add, wide, Conv(np.ones((2, 1, 1)), padding=[(4, 0)], dilation=4))
    # taps at -6, 0, 6 and at -4, 0: every second pixel from -6 to 6
    assert (merged.kernel_size, merged.dilation, merged.padding) == ((7,), (2,), ((6, 6),))
    assert np.asarray(merged.kernel)[:, 0, 0].tolist() == [1, 1, 0, 2, 0, 0, 1]


def test_groups_meet_at_their_greatest_common_divisor() -> None:
    merged = fold(add, Conv(np.ones((2, 12)), groups=6), Conv(np.ones((3, 12)), groups=4))
    assert (merged.groups, merged.kernel.shape) == (2, (6, 12))


@pytest.mark.parametrize("verb", [add, concatenate])
def test_a_single_branch_is_itself(verb: type(add)) -> None:
    one = Conv(np.ones((3, 1, 4)), np.ones(4), padding=1, strides=2, groups=2)
    merged = fold(verb, one)
    assert (merged.kernel == one.kernel).all()
    assert merged.axes == one.axes
    assert merged.groups == one.groups
    with pytest.raises(ValueError, match="at least one"):
        verb()
