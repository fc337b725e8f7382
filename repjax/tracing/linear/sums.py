"""Sums of affine forms: maps of one base become one map, also where channels are stacked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from repjax.algebra import shapes
from repjax.tracing.linear.forms import Apart, Base, Form, Mean, Ones, Stacked
from repjax.tracing.linear.map_arithmetic import MapArithmetic
from repjax.tracing.linear.maps import Map
from repjax.tracing.linear.roles import Layout
from repjax.tracing.program.program import Value


@dataclasses.dataclass(frozen=True)
class Sums(MapArithmetic):
    """Forms with nothing that waits; `layout` says which axes of a value are which."""

    layout: Callable[[Value], Layout]

    # What is asked of values.

    def features(self, value: Value) -> int:
        """Number of channels."""
        return int(value.shape[self.layout(value).channel])

    def sizes(self, base: Base) -> tuple[int | None, ...]:
        """Spatial size, None where it is symbolic: then a rule must hold for every size."""
        if isinstance(base, Ones):
            return known_sizes(base.sizes)
        layout = self.layout(base.value if isinstance(base, Mean) else base)
        if isinstance(base, Mean):
            kept = [axis for axis in layout.space if axis not in base.axes]
            return known_sizes(tuple(base.value.shape[axis] for axis in kept))
        return known_sizes(layout.sizes(base))

    def of_value(self, value: Value) -> Form:
        """The form of a value that is not looked into."""
        dims = self.layout(value).dims
        return Form(((value, self.identity(self.features(value), dims)),), None, dims)

    def plain_sum(self, forms: Sequence[Form]) -> Form:
        """The sum; maps of one base that cannot be one map stay apart, with a note why."""
        dims = next((form.dims for form in forms if form.terms), forms[0].dims)
        if any(form.dims != dims for form in forms if form.terms):
            raise Apart("numbers of spatial axes differ")
        groups: dict[Base, list[Map]] = {}
        for form in forms:
            for base, one in form.terms:
                groups.setdefault(base, []).append(one)
        terms: list[tuple[Base, Map]] = []
        notes: list[str] = []
        for base, maps in groups.items():
            merged: list[list[Map]] = []
            for one in maps:
                for group in merged:
                    pair = (group[0].shape, one.shape)
                    problems = shapes.parallel_problems(pair, self.sizes(base), True)
                    if not problems:
                        group.append(one)
                        break
                    notes.append(words(problems))
                else:
                    merged.append([one])
            terms += [(base, self.sum_maps(part)) for part in merged]
        bias = self.total([form.bias for form in forms])
        image = self.total([form.image for form in forms])
        return Form(tuple(terms), bias, dims, image, tuple(notes))

    def unstacked(self, state: Stacked) -> Form:
        """One sum for all channels: maps of one base become one map."""
        dims, total = state.parts[0].dims, sum(state.features)
        bases = dict.fromkeys(base for part in state.parts for base, _ in part.terms)
        terms: list[tuple[Base, Map]] = []
        for base in bases:
            found = [[one for at, one in part.terms if at == base] for part in state.parts]
            maps = [one for part in found for one in part]
            for one in maps[1:]:
                pair = (maps[0].shape, one.shape)
                problems = shapes.parallel_problems(pair, self.sizes(base), False)
                if problems:
                    raise Apart(words(problems))
            if all(len(part) == 1 for part in found):
                terms.append((base, self.stack_maps(maps)))
                continue
            spread = [
                self.compose(one, self.select(_placed(channels, total), len(channels), dims))
                for part, channels in zip(found, channel_ranges(state.features), strict=True)
                for one in part
            ]
            terms.append((base, self.sum_maps(spread)))
        bias = image = None
        pairs = list(zip(state.parts, state.features, strict=True))
        if any(part.bias is not None for part in state.parts):
            bias = self.joined([part.bias or self.full(0.0, count) for part, count in pairs])
        if any(part.image is not None for part in state.parts):
            if any(part.image is None for part in state.parts):
                raise Apart("weights that vary over positions in some of the channels")
            image = self.joined([part.image for part in state.parts if part.image is not None], -1)
        return Form(tuple(terms), bias, dims, image)


def words(problems: Sequence[str]) -> str:
    """Problems of geometry as one reason, without the number of the axis."""
    return "; ".join(dict.fromkeys(problem.partition(": ")[2] or problem for problem in problems))


def known_sizes(sizes: Sequence[object]) -> tuple[int | None, ...]:
    """Sizes, None in the place of a symbolic one."""
    return tuple(size if isinstance(size, int) else None for size in sizes)


def channel_ranges(features: Sequence[int]) -> list[range]:
    """The channels of each part."""
    starts = [sum(features[:place]) for place in range(len(features))]
    return [range(start, start + count) for start, count in zip(starts, features, strict=True)]


def _placed(channels: range, total: int) -> list[int]:
    return [place - channels.start if place in channels else -1 for place in range(total)]
