"""Timing: compiled beforehand, warmed up, parameters as arguments, forms alternated."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any, Protocol

import flax
import jax
import numpy as np

import repjax

COMPILE_OPTIONS: Mapping[str, Mapping[str, str]] = {
    "default": {},
    "no YNNPACK fusion": {
        "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INVALID",
    },
}
"""Compiler options by the name they have in tables; the second is for CPUs alone."""


@dataclasses.dataclass(frozen=True)
class Program:
    """One compiled form, with what the compiler reports of it.

    Args:
        name: of the form.
        options: name of the compile options.
        convolutions: in the traced program.
        optimised_convolutions: convolution calls left by the compiler.
        flops: as the compiler estimates them.
        bytes_accessed: as the compiler estimates them.
        temporary_bytes: memory for intermediate results.
        compile_seconds: time of the compilation.
        run: one call, which waits for the result.
    """

    name: str
    options: str
    convolutions: int
    optimised_convolutions: int
    flops: float
    bytes_accessed: float
    temporary_bytes: int
    compile_seconds: float
    run: Callable[[], Any]


def environment() -> dict[str, str]:
    """Device and versions, to stand beside every figure."""
    kind = jax.devices()[0].device_kind
    cores = f", {os.cpu_count()} cores" if jax.default_backend() == "cpu" else ""
    return {
        "device": f"{jax.device_count()} x {kind}{cores}",
        "jax": jax.__version__,
        "jaxlib": version("jaxlib"),
        "flax": flax.__version__,
    }


def option_names() -> list[str]:
    """The compile options that make sense on this device."""
    return list(COMPILE_OPTIONS) if jax.default_backend() == "cpu" else ["default"]


def compile_program(name: str, options: str, fn: Callable[..., Any], *args: Any) -> Program:
    """Compile ``fn(*args)`` with named options, and read what the compiler says of it."""
    lowered = jax.jit(fn).lower(*args)
    start = time.perf_counter()
    compiled = lowered.compile(compiler_options=dict(COMPILE_OPTIONS[options]) or None)
    seconds = time.perf_counter() - start
    cost: Any = compiled.cost_analysis() or {}
    memory: Any = compiled.memory_analysis()
    text = compiled.as_text() or ""
    return Program(
        name,
        options,
        convolutions=repjax.count_operations(fn, *args)["conv_general_dilated"],
        optimised_convolutions=sum(text.count(word) for word in _CONVOLUTION_CALLS),
        flops=float(cost.get("flops", float("nan"))),
        bytes_accessed=float(cost.get("bytes accessed", float("nan"))),
        temporary_bytes=int(getattr(memory, "temp_size_in_bytes", 0)),
        compile_seconds=seconds,
        run=lambda: jax.block_until_ready(compiled(*args)),  # type: ignore[no-untyped-call]
    )


_CONVOLUTION_CALLS = (" convolution(", "__cudnn$conv", "__onednn$convolution")


class Runs(Protocol):
    """What can be timed."""

    @property
    def run(self) -> Callable[[], Any]:
        """One call, which waits for the result."""
        ...


def alternate(
    programs: Sequence[Runs], *, repeats: int, seconds: float
) -> list[np.ndarray[Any, Any]]:
    """Seconds per call of each program: round after round, so that noise meets all alike.

    Args:
        programs: what to time.
        repeats: rounds at most.
        seconds: time after which no new round begins (five rounds are always made).
    """
    for program in programs:
        for _ in range(3):
            program.run()
    times: list[list[float]] = [[] for _ in programs]
    begin = time.perf_counter()
    for number in range(repeats):
        if number >= 5 and time.perf_counter() - begin > seconds:
            break
        for program, found in zip(programs, times, strict=True):
            start = time.perf_counter()
            program.run()
            found.append(time.perf_counter() - start)
    return [np.asarray(found) for found in times]


def quartiles(times: np.ndarray[Any, Any]) -> tuple[float, float, float]:
    """First quartile, median and third quartile of seconds (calls,), in milliseconds."""
    low, middle, high = np.percentile(times * 1e3, [25, 50, 75])
    return float(low), float(middle), float(high)
