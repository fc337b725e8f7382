"""Outcomes: the few kernels that compute an affine form, one choice made for each map."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from repjax.tracing.linear.affine import Affine
from repjax.tracing.linear.followed import meets_border
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
from repjax.tracing.linear.vectors import is_all
from repjax.tracing.program.program import Operation, Value
from repjax.tracing.program.weights import Weight
from repjax.tracing.program.zeros import is_zero

MULTIPLIES = frozenset({"convolution", "product"})
"""The kinds of terms and kernels that multiply data with a kernel."""


@dataclasses.dataclass(frozen=True)
class Term:
    """One map of one base.

    Args:
        base: what it reads.
        map: the map, after the window if there is one.
        kind: "identity", "negative", "view", "scale", "product" or "convolution".
        window: a sum or average over a window that comes first.
    """

    base: Value | Mean
    map: Map
    kind: str
    window: Map | None = None


@dataclasses.dataclass(frozen=True)
class Part:
    """A sum of terms, bias maps, a bias and an image, on some of the channels."""

    terms: tuple[Term, ...]
    bias_maps: tuple[tuple[Ones, Map], ...]
    bias: Weight | None
    image: Weight | None
    features: int

    @property
    def is_heavy(self) -> bool:
        """Whether a convolution or product is in it."""
        return any(term.kind in MULTIPLIES for term in self.terms)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Parts side by side on the channels of `value`; then a view, then rearrangements.

    The view gives something of the size of `viewed`.
    """

    parts: tuple[Part, ...]
    value: Value
    view: Map | None = None
    viewed: Value | None = None
    operations: tuple[Operation, ...] = ()

    @property
    def is_tied(self) -> bool:
        """Whether the 1/N of a mean is in its kernels: right for this resolution only."""
        bases = [term.base for part in self.parts for term in part.terms]
        return any(isinstance(base, Mean) and not base.divided for base in bases)

    @property
    def weights(self) -> Iterator[Weight]:
        """Everything it would read, in order."""
        for part in self.parts:
            yield from (term.map.kernel for term in part.terms)
            yield from (one.kernel for _, one in part.bias_maps)
            yield from (one for one in (part.bias, part.image) if one is not None)


def outcomes(state: State, value: Value, affine: Affine, *, spatial: bool) -> list[Outcome]:
    """The ways in which a form can be carried out, to be told apart by their cost.

    Args:
        state: the form of `value`.
        value: the value.
        affine: the verbs of forms.
        spatial: whether products are written as convolutions, as those they came from.

    Raises:
        Apart: there are none.
    """
    if isinstance(state, Summed):
        where = None if state.form.is_trivial else state.value
        raise Apart("a sum over positions is no mean", where)
    if isinstance(state, Rearranged):
        inner = outcomes(state.form, state.value, affine, spatial=spatial)
        return [
            dataclasses.replace(one, operations=(*one.operations, *state.operations))
            for one in inner
        ]
    found: list[Outcome] = []
    problem: Apart | None = None
    try:
        whole = affine.settled(state)
        found += [Outcome((part,), value) for part in _parts(whole, value, affine, spatial)]
    except Apart as apart:
        problem = apart
    if isinstance(state, Stacked):
        parts = [
            _parts(form, value, affine, spatial, features)[-1]
            for form, features in zip(state.parts, state.features, strict=True)
        ]
        found.append(Outcome(tuple(parts), value))
    if isinstance(state, Viewed):
        inner_parts = _parts(state.form, state.value, affine, spatial)
        found += [Outcome((part,), state.value, state.map, value) for part in inner_parts]
    if not found:
        assert problem is not None
        raise problem
    return found


def _parts(
    form: Form, value: Value, affine: Affine, spatial: bool, features: int | None = None
) -> list[Part]:
    """The form as it is and, where maps are made of a window and more, in two stages."""
    count = affine.features(value) if features is None else features
    data = [(base, one) for base, one in form.terms if not isinstance(base, Ones)]
    maps = tuple((base, one) for base, one in form.terms if isinstance(base, Ones))
    found = [tuple(_term(base, one, spatial) for base, one in data)]
    if any(one.stages is not None or one.is_average for _, one in data):
        found += [
            tuple(_staged(base, one, affine, spatial, inside) for base, one in data)
            for inside in (True, False)
        ]
    if any(isinstance(base, Mean) for base, _ in data):
        found.append(tuple(_undivided(base, one, affine, spatial) for base, one in data))
    bias = None if form.bias is None or is_zero(form.bias) else form.bias
    return [Part(terms, maps, bias, form.image, count) for terms in found]


def _term(base: Base, one: Map, spatial: bool, window: Map | None = None) -> Term:
    assert not isinstance(base, Ones)
    return Term(base, one, _kind(one, spatial and not isinstance(base, Mean)), window)


def _staged(base: Base, one: Map, affine: Affine, spatial: bool, inside: bool) -> Term:
    """A window, then the rest; the 1/N of an average stays with it or goes `inside` the rest."""
    stages = one.stages
    if one.is_average:
        stages = one, affine.identity(one.shape.features, one.shape.dims)
    if stages is None:
        return _term(base, one, spatial)
    window, rest = stages
    if window.is_average and inside:
        rest = _times_one_over(window.taps, rest, affine)
        window = affine.window(window.shape.features, window.shape.axes)
    return _term(base, rest, spatial, window)


def _undivided(base: Base, one: Map, affine: Affine, spatial: bool) -> Term:
    """The sum in the place of a mean, and its 1/N in the map."""
    if not isinstance(base, Mean):
        return _term(base, one, spatial)
    one = _times_one_over(base.count, one, affine)
    return _term(dataclasses.replace(base, divided=False), one, spatial)


def _times_one_over(count: int, one: Map, affine: Affine) -> Map:
    vector = affine.one_over(count, one.shape.in_features)
    return affine.compose(affine.scaled(vector, one.shape.dims), one)


def _kind(one: Map, spatial: bool) -> str:
    if one.is_identity:
        return "identity"
    if one.scale is not None:
        return "negative" if is_all(one.scale, -1.0) else "scale"
    if one.chosen is not None and -1 not in one.chosen:
        return "view"
    if one.is_pointwise and one.shape.groups == 1 and not (spatial and one.shape.dims):
        return "product"
    return "convolution"


def without_idle_maps(part: Part, affine: Affine) -> Part:
    """The part with biases for bias maps that read nothing but ones at this size."""
    idle = [
        (ones, one)
        for ones, one in part.bias_maps
        if not meets_border(one.shape, affine.sizes(ones))
    ]
    biases = [affine.through(affine.full(1.0, 1), one) for _, one in idle]
    kept = tuple(pair for pair in part.bias_maps if pair not in idle)
    return dataclasses.replace(part, bias=affine.total([part.bias, *biases]), bias_maps=kept)


def with_plain_kernels(outcome: Outcome) -> Outcome:
    """The outcome with variables that are kernels as they stand in the place of their copies."""

    def plain(weight: Weight) -> Weight:
        if weight.name != "kernel":
            return weight
        (operand,), static = weight.operands, weight.static
        assert isinstance(static, tuple)
        order = tuple(static[0])
        same = order == tuple(range(len(order))) and operand.shape == weight.shape
        return operand if same and operand.name == "variable" else weight

    parts = tuple(
        dataclasses.replace(
            part,
            terms=tuple(
                dataclasses.replace(
                    term, map=dataclasses.replace(term.map, kernel=plain(term.map.kernel))
                )
                for term in part.terms
            ),
        )
        for part in outcome.parts
    )
    return dataclasses.replace(outcome, parts=parts)
