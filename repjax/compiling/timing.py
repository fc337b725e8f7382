"""Timing compiled programs within a budget, in alternation."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax

_clock = time.perf_counter

FEW = 3
"""Runs of a program by itself, at least, which tell whether it is worth more."""

MOMENT = 0.2
"""Within so many seconds it is run more often, three times as often at most."""

HOPELESS = 1.5
"""A program that takes this many times as long as the fastest is not timed any further."""

ROUNDS = 50
"""Rounds of alternation at most."""

SECONDS = 5.0
"""After this time no further round begins, once there are `FEW`."""


class Budget:
    """Seconds that may pass, counted from now."""

    def __init__(self, seconds: float) -> None:
        self._end = _clock() + seconds

    def left(self) -> float:
        """Seconds left, negative when it is overdrawn."""
        return self._end - _clock()


def seconds_of(call: Callable[[], Any]) -> tuple[float, Any]:
    """How long a call takes, result and all, and the result."""
    start = _clock()
    result = jax.block_until_ready(call())  # type: ignore[no-untyped-call]
    return _clock() - start, result


def few(call: Callable[[], Any]) -> list[float]:
    """Seconds of a few calls."""
    times: list[float] = []
    while len(times) < FEW or (len(times) < 3 * FEW and sum(times) < MOMENT):
        times.append(seconds_of(call)[0])
    return times


def take_turns(
    calls: Sequence[Callable[[], Any]], another: Callable[[int], bool]
) -> list[list[float]]:
    """Seconds of each call in each round: round after round, so that noise meets all alike.

    Args:
        calls: what is timed.
        another: whether the round of that number, from 0, is made.
    """
    times: list[list[float]] = [[] for _ in calls]
    number = 0
    while another(number):
        for call, found in zip(calls, times, strict=True):
            found.append(seconds_of(call)[0])
        number += 1
    return times


def alternate(calls: Sequence[Callable[[], Any]], budget: Budget) -> list[float]:
    """Median seconds of each call, in turns, within a budget.

    Returns:
        One number per call, or none at all where not even one round fits.
    """
    start = _clock()

    def another(number: int) -> bool:
        if number >= ROUNDS or budget.left() <= 0:
            return False
        return number < FEW or _clock() - start <= SECONDS

    return [statistics.median(found) for found in take_turns(calls, another) if found]
