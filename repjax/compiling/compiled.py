"""What `compile` and `load_compiled` give: a compiled function, and what was tried for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import jax

from repjax.compiling.candidates import PLAIN
from repjax.compiling.options import Options
from repjax.compiling.probe import Probe
from repjax.compiling.signature import Signature

Verdict = Literal["chosen", "slower", "differs", "failed", "not tried"]


@dataclasses.dataclass(frozen=True)
class Trial:
    """One candidate, and how it did.

    Args:
        name: of the candidate.
        options: what XLA was given.
        shifted: whether depthwise convolutions were written as shifted multiply-adds.
        verdict: "chosen", "slower", "differs" (its outputs are others than plain's),
            "failed" (it does not compile or run) or "not tried" (out of time).
        reason: behind the last three verdicts.
        milliseconds: median of a call, None where it was not timed.
        ratio: plain's milliseconds over its own.
        compile_seconds: of compiling it, None where it does not compile.
    """

    name: str
    options: Options
    shifted: bool
    verdict: Verdict
    reason: str = ""
    milliseconds: float | None = None
    ratio: float | None = None
    compile_seconds: float | None = None


@dataclasses.dataclass(frozen=True)
class Source:
    """From what a compiled function can be written to a file.

    Args:
        function: the function of the chosen candidate, with baked constants.
        probe: arguments and outputs to check it with.
    """

    function: Callable[..., Any]
    probe: Probe


class Compiled:
    """A compiled function: it is called like the function, and prints what was tried.

    Attributes:
        trials: every candidate, plain first, with its time and verdict.
        chosen: the one among them that it runs.
        options: what XLA was given.
        shifted: whether depthwise convolutions are written as shifted multiply-adds.
        constants: whether the first argument is baked in, and not an argument any more.
        platform: "cpu", "gpu", ...
        program: the ``jax.stages.Compiled`` underneath, for its text, costs and memory.
        signature: of its arguments.
        source: from what it can be saved.
        remarks: what was found out when it was read from a file.
    """

    def __init__(
        self,
        program: jax.stages.Compiled,
        signature: Signature,
        trials: Sequence[Trial],
        source: Source,
        *,
        constants: bool,
        platform: str,
        remarks: Sequence[str] = (),
    ) -> None:
        self.program = program
        self.trials = tuple(trials)
        self.constants = constants
        self.platform = platform
        self.remarks = tuple(remarks)
        self.signature = signature
        self.source = source
        self._run: Callable[..., Any] = program if signature.only_arrays else self._flat

    @property
    def chosen(self) -> Trial:
        """The candidate that runs."""
        return next(trial for trial in self.trials if trial.verdict == "chosen")

    @property
    def options(self) -> Options:
        """What XLA was given."""
        return dict(self.chosen.options)

    @property
    def shifted(self) -> bool:
        """Whether depthwise convolutions are written as shifted multiply-adds."""
        return self.chosen.shifted

    def __call__(self, *args: Any) -> Any:
        """Run it.

        Raises:
            TypeError: arguments of another structure, shape or type than those compiled for.
        """
        try:
            return self._run(*args)
        except (TypeError, ValueError):
            problem = self.signature.mismatch(args)
            if problem is None:
                raise
        raise TypeError(f"{problem}; repjax.compile makes one program for one set of shapes")

    def _flat(self, *args: Any) -> Any:
        return self.program(self.signature.arrays_of(args))

    def save(self, path: str | Path, *, force: bool = False) -> None:
        """Write it to a file, which `repjax.export.load_compiled` reads.

        The file holds the program as `jax.export` serializes it, the options that were
        chosen, and some outputs on random arguments. It is read again and compared before it
        counts as written.

        Args:
            path: path of the file.
            force: replace a file that is there already.

        Raises:
            FileExistsError: the file exists, and `force` is false.
            OSError: it cannot be written.
            ValueError: the program or its arguments cannot be serialized.
            ModuleNotFoundError: the flatbuffers library is missing.
        """
        from repjax.compiling.saving import save_compiled

        save_compiled(self, path, force=force)

    def __repr__(self) -> str:
        chosen = self.chosen
        baked = ", first argument baked in" if self.constants else ""
        head = f"compiled for {self.platform}{baked}: {chosen.name}"
        if chosen.ratio is not None and chosen.name != PLAIN.name:
            head += f", {chosen.ratio:.2f} times as fast as plain"
        return "\n".join([head, *_table(self.trials), *self.remarks])


def in_short(error: Exception) -> str:
    """The type of an error and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:120]


def _table(trials: Sequence[Trial]) -> list[str]:
    width = max(len(trial.name) for trial in trials)
    lines = [f"  {'candidate':{width}}        ms  plain/it"]
    for trial in trials:
        mark = "*" if trial.verdict == "chosen" else " "
        time = "" if trial.milliseconds is None else f"{trial.milliseconds:.3f}"
        ratio = "" if trial.ratio is None else f"{trial.ratio:.2f}"
        why = f"{trial.verdict}: {trial.reason}" if trial.reason else trial.verdict
        lines.append(f"{mark} {trial.name:{width}}{time:>10}{ratio:>10}  {why}")
    return lines
