"""The roles of axes: channels, space or batch.

No layout is assumed. Operations say how axes of their operands and results correspond, and
which of them are channels or space; correspondence spreads the roles. An operation that would
give an axis two roles is not understood as linear and stays as it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import NamedTuple

from repjax.tracing.program.program import Value

CHANNEL, SPACE, BATCH = "channel", "space", "batch"


class ArrayAxis(NamedTuple):
    """One axis of one value."""

    value: Value
    place: int


@dataclasses.dataclass
class Relation:
    """What an operation says about axes."""

    same: list[tuple[ArrayAxis, ArrayAxis]] = dataclasses.field(default_factory=list)
    roles: list[tuple[ArrayAxis, str]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Layout:
    """The axes of one value by role; spatial axes in the order kernels have them.

    What is neither space nor channels is batch; `known_batch` are those known to be.
    """

    batch: tuple[int, ...]
    space: tuple[int, ...]
    channel: int
    known_batch: tuple[int, ...] = dataclasses.field(default=(), compare=False)

    @property
    def dims(self) -> int:
        """Number of spatial axes."""
        return len(self.space)

    def sizes(self, value: Value) -> tuple[int, ...]:
        """Spatial size of a value."""
        return tuple(value.shape[axis] for axis in self.space)


class _Contradiction(Exception):  # noqa: N818
    """An axis would have two roles."""


class _Class:
    __slots__ = ("members", "parent", "rank", "role")

    def __init__(self, axis: ArrayAxis) -> None:
        self.parent: _Class | None = None
        self.members: dict[Value, int] = {axis.value: axis.place}
        self.role: str | None = None
        self.rank = (axis.value.number, axis.place)


class Roles:
    """Classes of corresponding axes and their roles."""

    def __init__(self) -> None:
        self._classes: dict[ArrayAxis, _Class] = {}

    def relate(self, relation: Relation) -> bool:
        """Add what an operation says; False, and nothing added, if it contradicts."""
        undo: list[Callable[[], None]] = []
        try:
            for one, two in relation.same:
                self._join(self._find(one), self._find(two), undo)
            for axis, role in relation.roles:
                self._give(self._find(axis), role, undo)
        except _Contradiction:
            for revert in reversed(undo):
                revert()
            return False
        return True

    def layout(self, value: Value) -> Layout:
        """The layout of a value; what is neither space nor channels is batch."""
        classes = [self._find(ArrayAxis(value, index)) for index in range(len(value.shape))]
        roles = [found.role for found in classes]
        channel = roles.index(CHANNEL) if CHANNEL in roles else -1
        space = [index for index, role in enumerate(roles) if role == SPACE]
        space.sort(key=lambda index: classes[index].rank)
        batch = [index for index in range(len(roles)) if index not in (*space, channel)]
        known = [index for index in batch if roles[index] == BATCH]
        return Layout(tuple(batch), tuple(space), channel, tuple(known))

    def assume_channel(self, value: Value) -> None:
        """Where nothing says which axis is channels, take the last that is free."""
        free = [ArrayAxis(value, index) for index in reversed(range(len(value.shape)))]
        roles = [self.role(axis) for axis in free]
        if CHANNEL not in roles:
            for axis, role in zip(free, roles, strict=True):
                if role is None and self.relate(Relation(roles=[(axis, CHANNEL)])):
                    return

    def role(self, axis: ArrayAxis) -> str | None:
        """What is known of an axis."""
        return self._find(axis).role

    def _find(self, axis: ArrayAxis) -> _Class:
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
            raise _Contradiction
        if None not in (one.role, two.role) and one.role != two.role:
            raise _Contradiction
        before = one.role, one.rank

        def revert() -> None:
            one.role, one.rank = before
            two.parent = None
            for value in two.members:
                del one.members[value]

        undo.append(revert)
        newly = [one] if one.role != two.role and two.role == CHANNEL else []
        newly += [two] if one.role != two.role and one.role == CHANNEL else []
        members = [dict(found.members) for found in newly]
        two.parent = one
        one.members.update(two.members)
        one.rank = min(one.rank, two.rank)
        one.role = one.role or two.role
        for values in members:
            self._only_channel(one, values)

    def _give(self, found: _Class, role: str, undo: list[Callable[[], None]]) -> None:
        if found.role == role:
            return
        if found.role is not None:
            raise _Contradiction

        def revert() -> None:
            found.role = None

        undo.append(revert)
        found.role = role
        if role == CHANNEL:
            self._only_channel(found, found.members)

    def _only_channel(self, found: _Class, members: Iterable[Value]) -> None:
        for value in members:
            for index in range(len(value.shape)):
                other = self._find(ArrayAxis(value, index))
                if other is not found and other.role == CHANNEL:
                    raise _Contradiction
