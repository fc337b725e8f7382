"""Affine forms after one more map, borders included; what waits is done when it has to be."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from repjax.algebra import shapes
from repjax.algebra.geometry import Axis
from repjax.algebra.shapes import Shape
from repjax.tracing.linear.forms import (
    Apart,
    Base,
    Form,
    Mean,
    Ones,
    Rearranged,
    Stacked,
    State,
    Summed,
    Viewed,
)
from repjax.tracing.linear.maps import Map
from repjax.tracing.linear.per_channel import static_sizes
from repjax.tracing.linear.sums import Sums, channel_ranges, known_sizes, words
from repjax.tracing.program.program import Value
from repjax.tracing.program.weights import Weight
from repjax.tracing.program.zeros import is_zero


@dataclasses.dataclass(frozen=True)
class Followed(Sums):
    """Forms that a map follows, and forms that are settled."""

    def follow(self, state: State, second: Map, value: Value, result: Value | None = None) -> State:
        """The form after one more map.

        `value` has the form `state`; with `result`, the value that comes out, flips may go on
        waiting.
        """
        if second.is_identity:
            return state
        if isinstance(state, Stacked) and second.is_window:
            try:
                return self._each_part(state, second, value)
            except Apart:
                if second.chosen is None:
                    raise
        if isinstance(state, Stacked) and second.chosen is not None and second.is_pointwise:
            whole = _whole_parts(state, second.chosen)
            if whole is not None:
                return whole
        if isinstance(state, Viewed):
            sizes = self.sizes(state.value)
            if not shapes.chain_problems(state.map.shape, second.shape, sizes, False):
                second, value = self.compose(state.map, second), state.value
                state = state.form
        if isinstance(state, Rearranged) and result is not None:
            flipped = self.flipped(state)
            if flipped is not None and not any(second.shape.axes[a].stride > 1 for a in flipped):
                form = self.follow(state.form, self.mirrored(second, flipped), state.value)
                if isinstance(form, Form | Viewed | Stacked):
                    return Rearranged(form, result, state.operations)
        form = self.settled(state)
        if second.is_identity:
            return form
        if second.is_pointwise and second.shape.dims != form.dims:
            second = self.flattened(second, form.dims)
        if second.chosen is not None:
            return Viewed(form, second, value)
        return self._after(form, second, value)

    def _each_part(self, state: Stacked, window: Map, value: Value) -> Stacked:
        parts = [
            self._after(part, self.window(count, window.shape.axes), value)
            for part, count in zip(state.parts, state.features, strict=True)
        ]
        return dataclasses.replace(state, parts=tuple(parts))

    def flipped(self, state: Rearranged) -> list[int] | None:
        """The spatial axes that are flipped, if nothing else is rearranged."""
        if any(operation.name != "rev" for operation in state.operations):
            return None
        space = self.layout(state.value).space
        axes = [axis for one in state.operations for axis in one.params["dimensions"]]
        if not set(axes) <= set(space):
            return None
        return [place for place, axis in enumerate(space) if axes.count(axis) % 2]

    def settled(self, state: State) -> Form:
        """The form with nothing left that waits."""
        if isinstance(state, Form):
            return state
        if isinstance(state, Viewed):
            try:
                return self._after(state.form, state.map, state.value)
            except Apart as apart:
                raise Apart(apart.reason, apart.value or state.value) from None
        if isinstance(state, Stacked):
            return self.unstacked(state)
        if isinstance(state, Summed):
            raise Apart("a sum over positions is no mean")
        last = state.operations[-1]
        raise Apart(f"a rearrangement of elements ({last.name}) comes first", last.result)

    def _after(self, form: Form, second: Map, value: Value) -> Form:
        terms: list[tuple[Base, Map]] = []
        biases: list[Weight | None] = []
        for base, first in form.terms:
            problems = shapes.chain_problems(first.shape, second.shape, self.sizes(base), False)
            if problems:
                raise Apart(words(problems))
            both = self.compose(first, second)
            if isinstance(base, Ones) and not meets_border(both.shape):
                biases.append(self.through(self.full(1.0, 1), both))
            else:
                terms.append((base, both))
        if form.bias is not None and not meets_border(second.shape):
            biases.append(self.through(form.bias, second))
        elif form.bias is not None and not is_zero(form.bias):
            here = self.layout(value).sizes(value)
            one = self.bias_map(form.bias, second.shape.dims)
            problems = shapes.chain_problems(one.shape, second.shape, known_sizes(here), False)
            if problems:
                raise Apart(words(problems))
            terms.append((Ones(here), self.compose(one, second)))
        image = form.image
        if image is not None:
            image = self.image_through(image, second, static_sizes(self.layout(value).sizes(value)))
        return Form(tuple(terms), self.total(biases), form.dims, image)

    def mean(self, state: Summed) -> Form:
        """The mean of a form: maps of one tap go after the mean."""
        form, dims = state.form, None
        terms: list[tuple[Base, Map]] = []
        for base, one in form.terms:
            if not one.is_pointwise or not isinstance(base, Value):
                raise Apart("the mean over positions comes after a map of several", state.value)
            layout, own = self.layout(base), self.layout(state.value)
            places = {**dict(zip(own.space, layout.space, strict=True))}
            places |= dict(zip(own.batch, layout.batch, strict=False))
            if len(own.batch) != len(layout.batch) or not set(state.axes) <= places.keys():
                raise Apart("the mean is over the batch", state.value)
            axes = tuple(sorted(places[axis] for axis in state.axes))
            mean = Mean(base, axes, state.count, state.dtype)
            dims = len(self.sizes(mean))
            terms.append((mean, self.flattened(one, dims)))
        if form.image is not None or dims is None:
            raise Apart("the mean over positions of weights", state.value)
        return Form(tuple(terms), form.bias, dims)


def meets_border(second: Shape, sizes: Sequence[int | None] | None = None) -> bool:
    """Whether a map reads a place where a constant ends; without sizes: for some size."""
    channels = second.in_features
    still = Shape((Axis(1),) * second.dims, channels, channels, channels)
    known = (None,) * second.dims if sizes is None else tuple(sizes)
    return bool(shapes.chain_problems(still, second, known, True))


def _whole_parts(state: Stacked, chosen: Sequence[int]) -> State | None:
    """The parts that are chosen, where each is chosen whole and in its own order."""
    parts: list[Form] = []
    counts: list[int] = []
    rest = list(chosen)
    while rest:
        for part, channels in zip(state.parts, channel_ranges(state.features), strict=True):
            if rest[: len(channels)] == list(channels):
                parts.append(part)
                counts.append(len(channels))
                rest = rest[len(channels) :]
                break
        else:
            return None
    return parts[0] if len(parts) == 1 else Stacked(tuple(parts), tuple(counts))
