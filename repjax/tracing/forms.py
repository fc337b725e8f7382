"""Forms: what a value is, as a sum of maps of other values plus a bias, borders included."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from repjax.algebra import shapes
from repjax.algebra.geometry import Axis
from repjax.algebra.shapes import Shape
from repjax.tracing.expressions import Node
from repjax.tracing.graph import Value
from repjax.tracing.maps import Map, Maps
from repjax.tracing.zeros import is_zero


class Apart(Exception):  # noqa: N818
    """A value cannot be merged into its consumer, with the reason in words.

    Attributes:
        reason: why.
        value: which value, where it is not simply an operand.
    """

    def __init__(self, reason: str, value: Value | None = None) -> None:
        super().__init__(reason)
        self.reason, self.value = reason, value


@dataclasses.dataclass(frozen=True)
class View:
    """A pad, crop or stride that waits for what comes next: a crop may undo a pad.

    Attributes:
        map: what is to be done.
        value: the value it is to be done to.
    """

    map: Map
    value: Value


@dataclasses.dataclass(frozen=True)
class Form:
    """A sum of maps of base values plus a bias per channel (None: none), then perhaps a view."""

    terms: tuple[tuple[Value, Map], ...]
    bias: Node | None = None
    view: View | None = None


@dataclasses.dataclass(frozen=True)
class Forms(Maps):
    """The verbs of forms; `spatial_sizes` says how large a value is in space."""

    spatial_sizes: Callable[[Value], tuple[int, ...]]

    def follow(self, form: Form, second: Map, value: Value) -> Form:
        """The form after one more map, for the value that has this form.

        Raises:
            Apart: a border would differ.
        """
        if second.is_identity:
            return form
        if second.scale is not None and form.view is not None:
            inner = self.follow(dataclasses.replace(form, view=None), second, form.view.value)
            return dataclasses.replace(inner, view=form.view)
        if form.view is not None:
            view, sizes = form.view, self.spatial_sizes(form.view.value)
            if shapes.chain_problems(view.map.shape, second.shape, sizes, False):
                form = self.settle(form)
            else:
                second, value = self.compose(view.map, second, sizes), view.value
                form = dataclasses.replace(form, view=None)
        if second.is_identity:
            return form
        if second.bare:
            return dataclasses.replace(form, view=View(second, value))
        return self._apply(form, second, value)

    def settle(self, form: Form) -> Form:
        """The form without a view: what waits is done.

        Raises:
            Apart: a border would differ.
        """
        if form.view is None:
            return form
        plain = dataclasses.replace(form, view=None)
        try:
            return self._apply(plain, form.view.map, form.view.value)
        except Apart as apart:
            raise Apart(apart.reason, form.view.value) from None

    def _apply(self, form: Form, second: Map, value: Value) -> Form:
        terms = []
        for base, first in form.terms:
            sizes = self.spatial_sizes(base)
            problems = shapes.chain_problems(first.shape, second.shape, sizes, False)
            if problems:
                raise Apart(_words(problems))
            terms.append((base, self.compose(first, second, sizes)))
        bias = form.bias
        if bias is not None:
            channels = second.shape.in_features
            trivial = Shape((Axis(1),) * second.shape.dims, channels, channels, channels)
            sizes = self.spatial_sizes(value)
            problems = shapes.chain_problems(trivial, second.shape, sizes, True)
            if any("bias meets" in problem for problem in problems):
                if not is_zero(bias):
                    raise Apart(_words(problems))
                bias = None
            else:
                bias = self.through(bias, second)
        return Form(tuple(terms), bias)

    def merge(self, forms: Sequence[Form]) -> tuple[Form, list[str]]:
        """The sum of forms, and why maps of one base stay apart in it."""
        forms = [self.settle(form) for form in forms]
        groups: dict[Value, list[Map]] = {}
        for form in forms:
            for base, one in form.terms:
                groups.setdefault(base, []).append(one)
        terms, reasons = [], []
        for base, maps in groups.items():
            sizes = self.spatial_sizes(base)
            merged: list[list[Map]] = []
            for one in maps:
                for group in merged:
                    problems = shapes.parallel_problems((group[0].shape, one.shape), sizes, True)
                    if not problems:
                        group.append(one)
                        break
                    reasons.append(_words(problems))
                else:
                    merged.append([one])
            terms += [
                (base, self.add(part, sizes) if len(part) > 1 else part[0]) for part in merged
            ]
        biases = [form.bias for form in forms if form.bias is not None]
        bias = biases[0] if biases else None
        for other in biases[1:]:
            bias = self.vector("add", bias, other)
        return Form(tuple(terms), bias), reasons


def _words(problems: Sequence[str]) -> str:
    return "; ".join(dict.fromkeys(problem.partition(": ")[2] or problem for problem in problems))
