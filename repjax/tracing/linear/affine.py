"""What can be done with affine forms: scaled, shifted, followed by a map, added, stacked.

Each verb gives the form of the result, borders included, or raises `Apart`.
"""

from __future__ import annotations

import dataclasses
import math
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
from repjax.tracing.linear.per_channel import image_of, pulled_back, vector_of
from repjax.tracing.linear.sums import Sums, channel_ranges, known_sizes, words
from repjax.tracing.linear.vectors import uniform_number
from repjax.tracing.program.equality import meaning
from repjax.tracing.program.program import Value
from repjax.tracing.program.weights import Weight
from repjax.tracing.program.zeros import is_zero


@dataclasses.dataclass(frozen=True)
class Affine(Sums):
    """The verbs of forms."""

    # Scales and shifts.

    def scale(self, state: State, weight: Weight, value: Value, *, divide: bool = False) -> State:
        """The form times (or divided by) a weight, broadcast against `value`."""
        if isinstance(state, Rearranged):
            inner = pulled_back(self, weight, state.operations)
            form = self.scale(state.form, inner, state.value, divide=divide)
            assert isinstance(form, Form | Stacked)
            return dataclasses.replace(state, form=form)
        if isinstance(state, Summed):
            number = uniform_number(weight)
            if number is not None and _is_one_over(number, state.count, divide):
                return self._mean(state)
            raise Apart("a sum over positions keeps its own scale")
        vector = vector_of(self, weight, self.features(value), self.layout(value))
        if divide:
            vector = self.arithmetic("div", self.full(1.0, self.features(value)), vector)
        return self.scale_channels(state, vector, value)

    def scale_channels(self, state: Form | Viewed | Stacked, vector: Weight, value: Value) -> State:
        """The form times one number per channel."""
        if isinstance(state, Stacked):
            parts = [
                self._scaled_form(part, self.picked(vector, channels), value)
                for part, channels in zip(state.parts, channel_ranges(state.features), strict=True)
            ]
            return dataclasses.replace(state, parts=tuple(parts))
        if isinstance(state, Viewed):
            if not state.map.keeps_channels and not state.map.is_permutation:
                return self._scaled_form(self.settled(state), vector, value)
            inner = self.picked(vector, _inverse(state.map))
            form = self._scaled_form(state.form, inner, state.value)
            return dataclasses.replace(state, form=form)
        return self._scaled_form(state, vector, value)

    def _scaled_form(self, form: Form, vector: Weight, value: Value) -> Form:
        second = self.scaled(vector, form.dims)
        terms = tuple((base, self.compose(one, second)) for base, one in form.terms)
        bias = None if form.bias is None else self.arithmetic("mul", form.bias, vector)
        image = form.image
        if image is not None:
            image = self.image_through(image, second, _static(self.layout(value).sizes(value)))
        return Form(terms, bias, form.dims, image)

    def negative(self, state: State, value: Value) -> State:
        """The form times -1."""
        if isinstance(state, Summed | Rearranged):
            return self.scale(state, self.weights.constant(-1.0), value)
        return self.scale_channels(state, self.full(-1.0, self.features(value)), value)

    def shift(self, state: State, weight: Weight, value: Value, *, negative: bool = False) -> State:
        """The form plus (or minus) a weight, broadcast against `value`."""
        if isinstance(state, Rearranged):
            inner = pulled_back(self, weight, state.operations)
            form = self.shift(state.form, inner, state.value, negative=negative)
            assert isinstance(form, Form | Stacked)
            return dataclasses.replace(state, form=form)
        if isinstance(state, Summed):
            raise Apart("a shift of a sum over positions")
        try:
            added = Form(
                (),
                vector_of(self, weight, self.features(value), self.layout(value)),
                self.layout(value).dims,
            )
        except Apart:
            image = image_of(self, weight, value, self.layout(value))
            added = Form((), None, self.layout(value).dims, image)
        if negative:
            added = self._scaled_form(added, self.full(-1.0, self.features(value)), value)
        return self.shift_form(state, added, value)

    def shift_form(self, state: Form | Viewed | Stacked, added: Form, value: Value) -> State:
        """The form plus a form without maps."""
        if isinstance(state, Stacked) and added.bias is not None:
            parts = [
                self.plain_sum([part, Form((), self.picked(added.bias, channels), part.dims)])
                for part, channels in zip(state.parts, channel_ranges(state.features), strict=True)
            ]
            return dataclasses.replace(state, parts=tuple(parts))
        if isinstance(state, Viewed) and state.map.is_permutation and added.bias is not None:
            inner = self.picked(added.bias, _inverse(state.map))
            form = self.plain_sum([state.form, Form((), inner, state.form.dims)])
            return dataclasses.replace(state, form=form)
        return self.plain_sum([self.settled(state), added])

    # Maps.

    def follow(self, state: State, second: Map, value: Value, result: Value | None = None) -> State:
        """The form after one more map, for the value that has this form; `result` comes out."""
        if second.is_identity:
            return state
        if isinstance(state, Stacked) and second.is_window:
            parts = tuple(
                self._after(part, self.window(count, second.shape.axes), value)
                for part, count in zip(state.parts, state.features, strict=True)
            )
            return dataclasses.replace(state, parts=parts)
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
            flipped = self._flipped(state)
            if flipped is not None and not any(second.shape.axes[a].stride > 1 for a in flipped):
                form = self.follow(state.form, self.mirrored(second, flipped), state.value)
                return Rearranged(self.settled(form), result, state.operations)
        form = self.settled(state)
        if second.is_identity:
            return form
        if second.is_pointwise and second.shape.dims != form.dims:
            second = self.flattened(second, form.dims)
        if second.chosen is not None:
            return Viewed(form, second, value)
        return self._after(form, second, value)

    def _flipped(self, state: Rearranged) -> list[int] | None:
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
            image = self.image_through(image, second, _static(self.layout(value).sizes(value)))
        return Form(tuple(terms), self.total(biases), form.dims, image)

    def _mean(self, state: Summed) -> Form:
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

    # Sums and stacks.

    def add(self, states: Sequence[State]) -> State:
        """The sum of forms of one value's shape."""
        first = states[0]
        if all(self._waits_alike(first, other) for other in states[1:]):
            if isinstance(first, Rearranged):
                inner = self.add([one.form for one in states if isinstance(one, Rearranged)])
                if isinstance(inner, Form | Stacked):
                    return dataclasses.replace(first, form=inner)
            if isinstance(first, Viewed):
                forms = [one.form for one in states if isinstance(one, Viewed)]
                return dataclasses.replace(first, form=self.plain_sum(forms))
            if isinstance(first, Stacked):
                columns = zip(
                    *(one.parts for one in states if isinstance(one, Stacked)), strict=True
                )
                return dataclasses.replace(first, parts=tuple(map(self.plain_sum, columns)))
        return self.plain_sum([self.settled(state) for state in states])

    def _waits_alike(self, one: State, two: State) -> bool:
        """Whether what two forms wait for can be done once, to their sum."""
        if isinstance(one, Stacked) and isinstance(two, Stacked):
            return one.features == two.features
        if isinstance(one, Rearranged) and isinstance(two, Rearranged):
            pair = [[meaning(op.equation) for op in state.operations] for state in (one, two)]
            return pair[0] == pair[1] and self._alike(one.value, two.value)
        if isinstance(one, Viewed) and isinstance(two, Viewed):
            return one.map == two.map and self._alike(one.value, two.value)
        return False

    def _alike(self, one: Value, two: Value) -> bool:
        return one.shape == two.shape and self.layout(one) == self.layout(two)

    def stack(self, states: Sequence[State], features: Sequence[int]) -> State:
        """Forms stacked on the channels."""
        parts: list[Form] = []
        counts: list[int] = []
        for state, count in zip(states, features, strict=True):
            if isinstance(state, Stacked):
                parts += state.parts
                counts += state.features
            else:
                parts.append(self.settled(state))
                counts.append(count)
        return Stacked(tuple(parts), tuple(counts))


def meets_border(second: Shape, sizes: Sequence[int | None] | None = None) -> bool:
    """Whether a map reads a place where a constant ends; without sizes: for some size."""
    channels = second.in_features
    still = Shape((Axis(1),) * second.dims, channels, channels, channels)
    known = (None,) * second.dims if sizes is None else tuple(sizes)
    return bool(shapes.chain_problems(still, second, known, True))


def _static(sizes: Sequence[object]) -> tuple[int, ...]:
    numbers = tuple(size for size in sizes if isinstance(size, int))
    if len(numbers) != len(sizes):
        raise Apart("weights that vary over positions of a symbolic size")
    return numbers


def _is_one_over(number: float, count: int, divide: bool) -> bool:
    return number == count if divide else math.isclose(number * count, 1.0, rel_tol=1e-12)


def _inverse(one: Map) -> list[int]:
    assert one.chosen is not None
    return [one.chosen.index(channel) for channel in range(one.shape.in_features)]


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
