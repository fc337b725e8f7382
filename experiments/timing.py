"""Timing: compiled beforehand, warmed up, parameters as arguments, forms alternated."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import numpy as np

import repjax
from experiments._work import Work, work
from repjax.compiling.candidates import WITHOUT_YNNPACK
from repjax.compiling.timing import take_turns

DEFAULT, BEST, CONSTANTS = "default", "best", "constants"
"""Plain ``jax.jit``; `repjax.compile`; that with the variables baked in."""

Times = np.ndarray[Any, Any]
"""Seconds of each call, (calls,)."""


@dataclasses.dataclass(frozen=True)
class Program:
    """One compiled form, with what is known of it.

    Args:
        name: of the form.
        options: how it was compiled: "default", "best", "constants", or a name of
            `compile_options`.
        work: of the program, as written.
        convolution_calls: left by the compiler, of XLA's own or of a library.
        temporary_bytes: memory for intermediate results.
        compile_seconds: time of the compilation, of all candidates where several were tried.
        run: one call, which waits for the result and returns it.
        note: what was chosen.
    """

    name: str
    options: str
    work: Work
    convolution_calls: int
    temporary_bytes: int
    compile_seconds: float
    run: Callable[[], Any]
    note: str = ""


def compile_options() -> dict[str, dict[str, Any]]:
    """The compiler options that make sense on this device, by their name in tables."""
    found: dict[str, dict[str, Any]] = {DEFAULT: {}}
    if options := repjax.compiler_options():
        found["compiler_options()"] = dict(options)
    elif jax.default_backend() == "cpu":
        found[WITHOUT_YNNPACK.name] = dict(WITHOUT_YNNPACK.options)
    return found


def option_names() -> list[str]:
    """Their names."""
    return list(compile_options())


def compile_program(
    name: str, options: str, fn: Callable[..., Any], *args: Any, budget: float = 60.0
) -> Program:
    """Compile ``fn(*args)``, and read what the compiler says of it.

    Args:
        name: of the form.
        options: see `Program`.
        fn: any JAX function.
        *args: its arguments.
        budget: seconds that `repjax.compile` may take.
    """
    start = time.perf_counter()
    if options in (BEST, CONSTANTS):
        return _measured(name, options, fn, args, budget)
    lowered = jax.jit(fn).lower(*args)
    compiled = lowered.compile(compiler_options=compile_options()[options] or None)
    seconds = time.perf_counter() - start
    return Program(
        name,
        options,
        work(fn, *args),
        *_what_it_says(compiled),
        seconds,
        lambda: jax.block_until_ready(compiled(*args)),  # type: ignore[no-untyped-call]
    )


def _measured(
    name: str, options: str, fn: Callable[..., Any], args: tuple[Any, ...], budget: float
) -> Program:
    found = repjax.compile(fn, *args, constants=options == CONSTANTS, time_budget=budget)
    rest = args[1:] if options == CONSTANTS else args
    seconds = sum(trial.compile_seconds or 0.0 for trial in found.trials)
    return Program(
        name,
        options,
        work(fn, *args),
        *_what_it_says(found.program),
        seconds,
        lambda: jax.block_until_ready(found(*rest)),  # type: ignore[no-untyped-call]
        found.chosen.name,
    )


def _what_it_says(compiled: jax.stages.Compiled) -> tuple[int, int]:
    """Convolution calls in a compiled program, and bytes for intermediate results."""
    text = compiled.as_text() or ""
    memory: Any = compiled.memory_analysis()
    calls = sum(text.count(word) for word in _CONVOLUTION_CALLS)
    return calls, int(getattr(memory, "temp_size_in_bytes", 0))


_CONVOLUTION_CALLS = (" convolution(", "__cudnn$conv", "__onednn$convolution")


class Runs(Protocol):
    """What can be timed."""

    @property
    def run(self) -> Callable[[], Any]:
        """One call, which waits for the result."""
        ...


def alternate(programs: Sequence[Runs], *, repeats: int, seconds: float) -> list[Times]:
    """Seconds per call of each program: round after round, so that noise meets all alike.

    Args:
        programs: what to time.
        repeats: rounds at most.
        seconds: time after which no new round begins (five rounds are always made).
    """
    for program in programs:
        for _ in range(3):
            program.run()
    begin = time.perf_counter()

    def another(number: int) -> bool:
        return number < repeats and (number < 5 or time.perf_counter() - begin <= seconds)

    return [np.asarray(found) for found in take_turns([one.run for one in programs], another)]


def quartiles(times: Times) -> tuple[float, float, float]:
    """First quartile, median and third quartile of seconds (calls,), in milliseconds."""
    low, middle, high = np.percentile(times * 1e3, [25, 50, 75])
    return float(low), float(middle), float(high)
