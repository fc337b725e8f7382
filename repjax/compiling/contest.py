"""The candidates of `compile`: admitted one by one, timed together, one chosen."""

from __future__ import annotations

import dataclasses
import functools
import statistics
from collections.abc import Callable
from typing import Any

import jax

from repjax.compiling.candidates import PLAIN, Candidate
from repjax.compiling.compiled import Trial, Verdict, in_short
from repjax.compiling.forms import Forms, platform_of
from repjax.compiling.timing import FEW, HOPELESS, Budget, alternate, few, seconds_of
from repjax.compiling.tolerance import SAMPLES, Expected, compare, expect, outputs_of

LEAD = 1.03
"""Plain is kept unless another candidate is this many times as fast."""


@dataclasses.dataclass
class Contestant:
    """A candidate, compiled, with the seconds of its calls; or why there is none."""

    candidate: Candidate
    verdict: Verdict = "slower"
    reason: str = ""
    program: jax.stages.Compiled | None = None
    compile_seconds: float | None = None
    times: list[float] = dataclasses.field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Median of a call."""
        return statistics.median(self.times)

    def trial(self, plain: float) -> Trial:
        """What is told of it, with plain's seconds for comparison."""
        one = self.candidate
        told = Trial(one.name, dict(one.options), one.shifted, self.verdict, self.reason)
        if self.times:
            seconds = self.seconds
            told = dataclasses.replace(told, milliseconds=1e3 * seconds, ratio=plain / seconds)
        return dataclasses.replace(told, compile_seconds=self.compile_seconds)

    def line(self) -> str:
        """One line for who waits."""
        if self.verdict != "slower":
            return f"{self.candidate.name}: {self.verdict}: {self.reason}"
        return (
            f"{self.candidate.name}: {1e3 * self.seconds:.3f} ms, "
            f"compiled in {self.compile_seconds:.1f} s"
        )


class Contest:
    """Plain against the others.

    Args:
        forms: what to compile.
        free: the same with every argument free, none of them baked in, from which the
            tolerance is found.
        budget: seconds for everything.
        say: takes one line at a time.
    """

    def __init__(
        self, forms: Forms, free: Forms, budget: Budget, say: Callable[[str], Any]
    ) -> None:
        self._forms, self._free, self._budget, self._say = forms, free, budget, say
        self.plain = Contestant(PLAIN)
        self.all = [self.plain]
        self._compile(self.plain)
        self._time(self.plain)

    def admit(self, candidate: Candidate) -> None:
        """Compile a candidate, compare its outputs with plain's, and run it a few times."""
        one = Contestant(candidate)
        self.all.append(one)
        if self._budget.left() < self._price():
            one.verdict, one.reason = "not tried", "out of time"
        else:
            try:
                self._compile(one)
                problem = compare(self._expected, outputs_of(self._run(one)))
                if problem is None:
                    return self._time(one)
                one.verdict, one.reason = "differs", problem
            except Exception as error:  # whatever it is, plain works
                one.verdict, one.reason = "failed", in_short(error)
        self._say(one.line())
        return None

    def decide(self) -> Contestant:
        """Time those that are not hopeless in alternation, and choose."""
        able = [one for one in self.all if one.times]
        limit = HOPELESS * min(min(one.times) for one in able)
        final = [one for one in able if one is self.plain or min(one.times) <= limit]
        if len(final) > 1:
            medians = alternate([functools.partial(self._run, one) for one in final], self._budget)
            for one, median in zip(final, medians, strict=False):
                one.times = [median]
        best = min(able, key=lambda one: one.seconds)
        if self.plain.seconds < LEAD * best.seconds:
            if best is not self.plain:
                best.reason = f"less than {LEAD} times as fast as plain"
            best = self.plain
        best.verdict = "chosen"
        return best

    @functools.cached_property
    def _expected(self) -> list[Expected]:
        baked = self._free is not self._forms
        program = self._free.lowered(shifted=False).compile() if baked else self.plain.program
        assert program is not None
        return expect(program, self._free.arrays, self._free.roundoff(platform_of(program)))

    def _price(self) -> float:
        """Seconds that another candidate may take: as plain, to compile and to run."""
        runs, compilations = 1 + FEW, 1
        if "_expected" not in vars(self):
            runs += 2 * SAMPLES
            compilations += self._free is not self._forms
        return compilations * (self.plain.compile_seconds or 0.0) + runs * self.plain.seconds

    def _compile(self, one: Contestant) -> None:
        options: Any = one.candidate.options or None

        def compiled() -> jax.stages.Compiled:
            return self._forms.lowered(one.candidate.shifted).compile(compiler_options=options)

        one.compile_seconds, one.program = seconds_of(compiled)

    def _run(self, one: Contestant) -> Any:
        assert one.program is not None
        return one.program(*self._forms.arrays)

    def _time(self, one: Contestant) -> None:
        if one is self.plain:
            jax.block_until_ready(self._run(one))  # type: ignore[no-untyped-call]
        one.times = few(functools.partial(self._run, one))
        self._say(one.line())
