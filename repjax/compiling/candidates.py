"""The ways of compiling a program that `compile` tries."""

from __future__ import annotations

import dataclasses

from repjax.compiling.options import NO_YNNPACK, Options, compiler_options


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One way of compiling a program.

    Args:
        name: as it stands in tables.
        options: what XLA is given.
        shifted: whether depthwise convolutions are written as shifted multiply-adds.
    """

    name: str
    options: Options
    shifted: bool = False


PLAIN = Candidate("plain", {})
"""What ``jax.jit`` does by itself."""


WITHOUT_YNNPACK = Candidate("no YNNPACK fusion", NO_YNNPACK)
"""XLA:CPU as it is, but for its fusion into YNNPACK."""


def candidates(platform: str, depthwise: bool) -> list[Candidate]:
    """The candidates beside plain, most promising first.

    Args:
        platform: "cpu", "gpu", ...
        depthwise: whether the program has depthwise convolutions.

    Example:
        >>> [candidate.name for candidate in candidates("no such platform", depthwise=True)]
        ['shifted']
    """
    options = compiler_options(platform)
    found = [Candidate("compiler_options()", options)] if options else []
    if platform == "cpu":
        found.append(WITHOUT_YNNPACK)
    if not depthwise:
        return found
    shifted = [
        Candidate(f"{one.name}, shifted", one.options, shifted=True) for one in reversed(found)
    ]
    return [*found[:1], *shifted, *found[1:], Candidate("shifted", {}, shifted=True)]
