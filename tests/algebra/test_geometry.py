"""The integers behind the rules, against counting: number of outputs, borders, lattices."""

from __future__ import annotations

from collections import Counter

from hypothesis import event, given, settings
from hypothesis import strategies as st

from repjax.algebra.geometry import (
    Axis,
    before_input_dilation,
    border,
    composition,
    same_outputs,
    union,
)

few = st.integers(1, 3)
axes = st.builds(
    Axis,
    taps=st.integers(1, 4),
    stride=few,
    low=st.integers(-2, 4),
    high=st.integers(-2, 4),
    dilation=few,
    input_dilation=few,
)
MANY = range(1, 60)


def reads(axis: Axis, size: int) -> list[set[int]]:
    """The input pixels that each output reads."""
    pixels = {n * axis.input_dilation: n for n in range(size)}
    starts = [number * axis.stride - axis.low for number in range(axis.outputs(size))]
    return [
        {pixels[at] for tap in range(axis.taps) if (at := start + tap * axis.dilation) in pixels}
        for start in starts
    ]


@given(axes, st.integers(0, 12))
def test_outputs_are_the_windows_that_fit(axis: Axis, size: int) -> None:
    padded = [None] * (axis.low + axis.high + axis.dilated(size))
    extent = (axis.taps - 1) * axis.dilation + 1
    windows = [start for start in range(len(padded)) if start + extent <= len(padded)]
    assert axis.outputs(size) == len(windows[:: axis.stride])


@settings(max_examples=300)
@given(axes, axes)
def test_equal_outputs_for_every_size_is_what_it_says(one: Axis, two: Axis) -> None:
    two = Axis(two.taps, one.stride, two.low, two.high, two.dilation, one.input_dilation)
    agree = all(same_outputs(one, two, size) for size in MANY)
    event(f"agree {agree}")
    assert same_outputs(one, two, None) == agree


def test_the_border_without_a_size_is_that_of_some_size() -> None:
    seen: Counter[tuple[bool, bool]] = Counter()

    @settings(max_examples=400)
    @given(axes, axes)
    def law(first: Axis, second: Axis) -> None:
        if second.input_dilation > 1:
            first = Axis(first.taps, 1, first.low, first.high, first.dilation, 1)
        first, second = before_input_dilation(first, second)
        # sizes of which `first` leaves something: of an empty image nothing can be lost
        found = [border(first, second, size) for size in MANY if first.outputs(size)]
        some = (any(outside for outside, _ in found), any(loses for _, loses in found))
        seen[some] += 1
        assert border(first, second, None) == some

    law()
    assert len(seen) == 3, seen  # all but "loses its kernel without reading outside"


def test_a_chain_reads_what_its_parts_read() -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=300)
    @given(axes, axes, st.integers(1, 12))
    def law(first: Axis, second: Axis, size: int) -> None:
        if second.input_dilation > 1:
            first = Axis(first.taps, 1, first.low, first.high, first.dilation, 1)
        if not first.outputs(size):
            return
        middle = reads(first, size)
        expected = [set().union(*(middle[n] for n in taps)) for taps in reads(second, len(middle))]
        moved = before_input_dilation(first, second)
        merged = composition(*moved)
        assert merged.outputs(size) == len(expected)
        if not border(*moved, size)[1]:
            seen["exact"] += 1
            found = reads(merged, size)
            assert all(few <= all_ for few, all_ in zip(expected, found, strict=True))

    law()
    assert seen["exact"] > 50, seen


@given(st.lists(axes, min_size=1, max_size=4))
def test_the_union_is_the_coarsest_lattice(parts: list[Axis]) -> None:
    merged = union(parts)
    wanted = {int(offset) for part in parts for offset in part.offsets()}
    held = {int(offset) for offset in merged.offsets()}
    assert wanted <= held
    assert {min(held), max(held)} == {min(wanted), max(wanted)}
    if merged.taps > 1:
        for coarser in range(merged.dilation + 1, max(held) - min(held) + 1):
            assert not wanted <= set(range(min(held), max(held) + 1, coarser))
    assert [merged.outputs(size) for size in MANY] == [
        Axis(
            parts[0].taps,
            parts[0].stride,
            parts[0].low,
            parts[0].high,
            parts[0].dilation,
            parts[0].input_dilation,
        ).outputs(size)
        for size in MANY
    ]
