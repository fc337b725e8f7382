"""Which array axis means what: channels, space or batch.

No layout is assumed. Operations say how axes of their operands and results correspond, and
which of them are channels or space; correspondence spreads the meaning. An operation that
would give an axis two meanings is not understood as linear and stays as it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import NamedTuple

from repjax.tracing.graph import Value

CHANNEL, SPACE, BATCH = "channel", "space", "batch"


class Axis(NamedTuple):
    """One axis of one value."""

    value: Value
    place: int


@dataclasses.dataclass
class Relation:
    """What an operation says about axes."""

    same: list[tuple[Axis, Axis]] = dataclasses.field(default_factory=list)
    meanings: list[tuple[Axis, str]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Layout:
    """The meaning of the axes of one value; spatial axes in the order kernels have them."""

    batch: tuple[int, ...]
    space: tuple[int, ...]
    channel: int

    @property
    def dims(self) -> int:
        """Number of spatial axes."""
        return len(self.space)

    def sizes(self, value: Value) -> tuple[int, ...]:
        """Spatial size of a value."""
        return tuple(value.shape[axis] for axis in self.space)


class _Conflict(Exception):  # noqa: N818
    """An axis would have two meanings."""


class _Class:
    __slots__ = ("meaning", "members", "parent", "rank")

    def __init__(self, axis: Axis) -> None:
        self.parent: _Class | None = None
        self.members: dict[Value, int] = {axis.value: axis.place}
        self.meaning: str | None = None
        self.rank = (axis.value.number, axis.place)


class Axes:
    """Classes of corresponding axes and their meanings."""

    def __init__(self) -> None:
        self._classes: dict[Axis, _Class] = {}

    def relate(self, relation: Relation) -> bool:
        """Add what an operation says; False, and nothing added, if it contradicts."""
        undo: list[Callable[[], None]] = []
        try:
            for one, two in relation.same:
                self._join(self._find(one), self._find(two), undo)
            for axis, meaning in relation.meanings:
                self._mean(self._find(axis), meaning, undo)
        except _Conflict:
            for revert in reversed(undo):
                revert()
            return False
        return True

    def layout(self, value: Value) -> Layout:
        """The layout of a value; what is neither space nor channels is batch."""
        classes = [self._find(Axis(value, index)) for index in range(len(value.shape))]
        meanings = [found.meaning for found in classes]
        channel = meanings.index(CHANNEL) if CHANNEL in meanings else -1
        space = [index for index, meaning in enumerate(meanings) if meaning == SPACE]
        space.sort(key=lambda index: classes[index].rank)
        batch = [index for index in range(len(meanings)) if index not in (*space, channel)]
        return Layout(tuple(batch), tuple(space), channel)

    def assume_channel(self, value: Value) -> None:
        """Where nothing says which axis is channels, take the last that is free."""
        free = [Axis(value, index) for index in reversed(range(len(value.shape)))]
        meanings = [self.meaning(axis) for axis in free]
        if CHANNEL not in meanings:
            for axis, meaning in zip(free, meanings, strict=True):
                if meaning is None and self.relate(Relation(meanings=[(axis, CHANNEL)])):
                    return

    def meaning(self, axis: Axis) -> str | None:
        """What is known of an axis."""
        return self._find(axis).meaning

    def _find(self, axis: Axis) -> _Class:
        found = self._classes.get(axis)
        if found is None:
            found = self._classes[axis] = _Class(axis)
        while found.parent is not None:
            found = found.parent
        return found

    def _join(self, one: _Class, two: _Class, undo: list[Callable[[], None]]) -> None:
        if one is two:
            return
        if len(one.members) < len(two.members):
            one, two = two, one
        if any(value in one.members for value in two.members):
            raise _Conflict
        if None not in (one.meaning, two.meaning) and one.meaning != two.meaning:
            raise _Conflict
        before = one.meaning, one.rank

        def revert() -> None:
            one.meaning, one.rank = before
            two.parent = None
            for value in two.members:
                del one.members[value]

        undo.append(revert)
        newly = [one] if one.meaning != two.meaning and two.meaning == CHANNEL else []
        newly += [two] if one.meaning != two.meaning and one.meaning == CHANNEL else []
        members = [dict(found.members) for found in newly]
        two.parent = one
        one.members.update(two.members)
        one.rank = min(one.rank, two.rank)
        one.meaning = one.meaning or two.meaning
        for values in members:
            self._only_channel(one, values)

    def _mean(self, found: _Class, meaning: str, undo: list[Callable[[], None]]) -> None:
        if found.meaning == meaning:
            return
        if found.meaning is not None:
            raise _Conflict

        def revert() -> None:
            found.meaning = None

        undo.append(revert)
        found.meaning = meaning
        if meaning == CHANNEL:
            self._only_channel(found, found.members)

    def _only_channel(self, found: _Class, members: Iterable[Value]) -> None:
        for value in members:
            for index in range(len(value.shape)):
                other = self._find(Axis(value, index))
                if other is not found and other.meaning == CHANNEL:
                    raise _Conflict
