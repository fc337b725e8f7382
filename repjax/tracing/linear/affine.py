"""The verbs that rules use: forms scaled, shifted, added, stacked.

`follow`, `settled` and `mean` are inherited from `Followed`. Each verb gives the form of the
result, borders included, or raises `Apart`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from repjax.tracing.linear.followed import Followed
from repjax.tracing.linear.forms import (
    Apart,
    Form,
    Rearranged,
    Stacked,
    State,
    Summed,
    Viewed,
)
from repjax.tracing.linear.maps import Map
from repjax.tracing.linear.per_channel import image_of, pulled_back, static_sizes, vector_of
from repjax.tracing.linear.sums import channel_ranges
from repjax.tracing.linear.vectors import uniform_number, without_factor
from repjax.tracing.program.equality import meaning
from repjax.tracing.program.program import Value
from repjax.tracing.program.weights import Weight


@dataclasses.dataclass(frozen=True)
class Affine(Followed):
    """The verbs of forms."""

    # Scales and shifts.

    def scale(self, state: State, weight: Weight, value: Value, *, divide: bool = False) -> State:
        """The form times (or divided by) a weight, broadcast against `value`."""
        if isinstance(state, Rearranged):
            inner = pulled_back(self, weight, state.operations)
            form = self.scale(state.form, inner, state.value, divide=divide)
            assert isinstance(form, Form | Viewed | Stacked)
            return dataclasses.replace(state, form=form)
        if isinstance(state, Summed):
            number = uniform_number(weight)
            if _one_over(number, divide) == state.count or state.count == number == 1:
                return self.mean(state)
            raise Apart("a sum over positions keeps its own scale")
        vector = vector_of(self, weight, self.features(value), self.layout(value))
        if divide:
            vector = self.arithmetic("div", self.full(1.0, self.features(value)), vector)
        if isinstance(state, Form):
            number = uniform_number(weight)
            return self._scaled_form(state, vector, value, _one_over(number, divide))
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

    def _scaled_form(
        self, form: Form, vector: Weight, value: Value, count: int | None = None
    ) -> Form:
        """The form times a vector that is 1 / `count` for all channels, if `count` is given."""
        second = self.scaled(vector, form.dims)
        terms = tuple((base, self._scaled_map(one, second, count)) for base, one in form.terms)
        bias = None if count is None or form.bias is None else without_factor(form.bias, count)
        if bias is None and form.bias is not None:
            bias = self.arithmetic("mul", form.bias, vector)
        image = form.image
        if image is not None:
            image = self.image_through(image, second, static_sizes(self.layout(value).sizes(value)))
        return Form(terms, bias, form.dims, image)

    def _scaled_map(self, one: Map, second: Map, count: int | None) -> Map:
        if count is not None and count == (one.stages or (one,))[0].taps:
            average = self.with_average(one)
            if average is not None:
                return average
        return self.compose(one, second)

    def negative(self, state: State, value: Value) -> State:
        """The form times -1."""
        if isinstance(state, Summed | Rearranged):
            return self.scale(state, self.weights.constant(-1.0), value)
        return self.scale_channels(state, self.full(-1.0, self.features(value)), value)

    def shift_channels(self, state: State, vector: Weight, value: Value) -> State:
        """The form plus one number per channel."""
        channel = self.layout(value).channel
        shape = [1] * len(value.shape)
        shape[channel] = self.features(value)
        return self.shift(state, self.reshaped(vector, tuple(shape)), value)

    def shift(self, state: State, weight: Weight, value: Value, *, negative: bool = False) -> State:
        """The form plus (or minus) a weight, broadcast against `value`."""
        if isinstance(state, Rearranged):
            inner = pulled_back(self, weight, state.operations)
            form = self.shift(state.form, inner, state.value, negative=negative)
            assert isinstance(form, Form | Viewed | Stacked)
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
        return self._shift_form(state, added)

    def _shift_form(self, state: Form | Viewed | Stacked, added: Form) -> State:
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

    # Sums and stacks.

    def add(self, states: Sequence[State]) -> State:
        """The sum of forms of one value's shape."""
        first = states[0]
        if all(self._waits_alike(first, other) for other in states[1:]):
            if isinstance(first, Rearranged):
                inner = self.add([one.form for one in states if isinstance(one, Rearranged)])
                if isinstance(inner, Form | Viewed | Stacked):
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

    def _flipped_alike(self, states: Sequence[Rearranged]) -> bool:
        """Whether the same spatial axes are flipped in each."""
        axes = [self.flipped(one) for one in states]
        return axes[0] is not None and all(one == axes[0] for one in axes)

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

    def stack(self, states: Sequence[State], features: Sequence[int], result: Value) -> State:
        """Forms stacked on the channels of `result`."""
        flipped = [one for one in states if isinstance(one, Rearranged)]
        if len(flipped) == len(states) and self._flipped_alike(flipped):
            form = self.stack([one.form for one in flipped], features, result)
            assert isinstance(form, Stacked)
            return Rearranged(form, result, flipped[0].operations)
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


def _one_over(number: float | None, divide: bool) -> int | None:
    """The count that a product with, or division by, a number is an average of."""
    if number is None or number <= 0.0:
        return None
    count = round(number if divide else 1.0 / number)
    exact = number == count if divide else math.isclose(number * count, 1.0, rel_tol=1e-12)
    return count if exact and count > 1 else None


def _inverse(one: Map) -> list[int]:
    assert one.chosen is not None
    return [one.chosen.index(channel) for channel in range(one.shape.in_features)]
