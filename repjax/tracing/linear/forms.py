"""Affine forms: what a value is, as a sum of maps of other values plus a bias.

A form may end in something that waits for what comes next: a crop may undo a pad, channels
stacked here may be taken apart there, a scale after a reshape may go before it. What a form
ends in is one of four small nouns around the sum itself: `Viewed`, `Stacked`, `Summed`,
`Rearranged`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from repjax.tracing.linear.maps import Map
from repjax.tracing.program.program import Operation, Value
from repjax.tracing.program.weights import Weight


class Apart(Exception):  # noqa: N818
    """A value cannot be merged into its consumer, with the reason in words.

    Args:
        reason: why.
        value: which value, where it is not simply an operand.
    """

    def __init__(self, reason: str, value: Value | None = None) -> None:
        super().__init__(reason)
        self.reason, self.value = reason, value


@dataclasses.dataclass(frozen=True)
class Ones:
    """An image of ones of one channel, as large as some value: what a bias is a map of."""

    sizes: tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Mean:
    """The mean of a value over some of its axes.

    Args:
        value: what is averaged.
        axes: the axes that go.
        count: number of elements in each mean.
        dtype: the type in which the program adds up.
        divided: whether it is the mean; else the sum, where 1/N is elsewhere.
    """

    value: Value
    axes: tuple[int, ...]
    count: int
    dtype: Any
    divided: bool = True


Base = Value | Ones | Mean


@dataclasses.dataclass(frozen=True)
class Form:
    """A sum of maps of bases, plus a bias per channel, plus an image of weights.

    Args:
        terms: the maps, each with the base it reads.
        bias: one number per channel, or None.
        image: numbers per position and channel (spatial..., channels), or None.
        dims: number of spatial axes.
        notes: why maps of one base stay apart in the sum made here.
    """

    terms: tuple[tuple[Base, Map], ...]
    bias: Weight | None
    dims: int
    image: Weight | None = None
    notes: tuple[str, ...] = ()

    @property
    def is_trivial(self) -> bool:
        """Whether it is one value as it stands."""
        alone = self.bias is None and self.image is None and len(self.terms) == 1
        return alone and self.terms[0][1].is_identity


@dataclasses.dataclass(frozen=True)
class Viewed:
    """A pad, crop, stride or choice of channels that waits.

    Args:
        form: of the value that it is done to.
        map: what is to be done.
        value: the value it is done to.
    """

    form: Form
    map: Map
    value: Value


@dataclasses.dataclass(frozen=True)
class Stacked:
    """Forms side by side on the channels."""

    parts: tuple[Form, ...]
    features: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Summed:
    """A sum over some axes that waits for its 1/N; `form` is of `value`, which is summed."""

    form: Form
    value: Value
    axes: tuple[int, ...]
    count: int
    dtype: Any


@dataclasses.dataclass(frozen=True)
class Rearranged:
    """Reshapes, transposes and flips that wait; `form` is of `value`, their input."""

    form: Form | Viewed | Stacked
    value: Value
    operations: tuple[Operation, ...]


State = Form | Viewed | Stacked | Summed | Rearranged
"""A form, or a form with something that waits; `Affine.settled` does what waits."""
