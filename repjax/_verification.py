"""What `verify` found: figures, one of three verdicts, and the reason where there is one."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np

MARGIN = 16.0
"""The bound is this many unit roundoffs of the magnitude; correct folds stay below 9."""

Array = np.ndarray[Any, Any]
Verdict = Literal["equal to rounding", "NOT equal", "proves nothing"]


@dataclasses.dataclass(frozen=True)
class Verification:
    """What `verify` found; true where the two programs agree, and it prints as a table.

    Args:
        largest: largest finite absolute value of the float64 output of `a`.
        difference: largest difference of the two programs, both in float64.
        error_a: largest error of `a`, as it runs, against its float64 value.
        error_b: largest error of `b`, as it runs, against the float64 value of `a`.
        bound: largest of the elementwise bounds.
        worst: largest ratio of an error of `b`, or of the difference, to its own bound; the
            difference is held to the roundoff of the stored variables.
        roundoff: unit roundoff of the coarsest type in either program.
        dtype: that type's name.
        problem: why the outputs cannot be compared, or where they cannot agree, or None.
        silent: why agreement on these inputs would prove nothing, or None.

    Example:
        >>> found = Verification(worst=0.5, silent="the output is zero")
        >>> found.verdict, bool(found)
        ('proves nothing', False)
    """

    largest: float = 0.0
    difference: float = 0.0
    error_a: float = 0.0
    error_b: float = 0.0
    bound: float = 0.0
    worst: float = 0.0
    roundoff: float = 0.0
    dtype: str = ""
    problem: str | None = None
    silent: str | None = None

    @property
    def verdict(self) -> Verdict:
        """One of three: programs that differ are never said to prove nothing."""
        if self.problem is not None or not self.worst <= 1.0:
            return "NOT equal"
        return "equal to rounding" if self.silent is None else "proves nothing"

    def __bool__(self) -> bool:
        """Whether the programs agree, and the inputs were such that this says something."""
        return self.verdict == "equal to rounding"

    def __str__(self) -> str:
        if self.problem is not None:
            return f"not equal: {self.problem}"
        reason = "" if self.silent is None else f": {self.silent}"
        return "\n".join(
            [
                f"{self.verdict} ({self.dtype}){reason}",
                f"  largest output                {self.largest:.3g}",
                f"  b - a, both in float64        {self.difference:.2e}",
                f"  error of a against float64    {self.error_a:.2e}",
                f"  error of b against float64    {self.error_b:.2e}",
                f"  allowed, largest              {self.bound:.2e}"
                f"   ({MARGIN:g} x {self.roundoff:.1e} x magnitude)",
                f"  worst error / its own bound   {self.worst:.3f}",
            ]
        )


FIGURES = ("largest", "difference", "error_a", "error_b", "bound", "worst")


def figures_of(
    truth: Array, other: Array, low_a: Array, low_b: Array, bound: Array, stored: float
) -> dict[str, float]:
    """The figures of one output, by their names. All arrays have the shape of the output.

    Args:
        truth: output of `a` in float64.
        other: output of `b` in float64.
        low_a: output of `a` as it runs.
        low_b: output of `b` as it runs.
        bound: elementwise bounds.
        stored: factor on the bound for the difference of the two in float64.
    """
    difference, error_a, error_b = (
        np.abs(difference_of(values, truth)) for values in (other, low_a, low_b)
    )
    worst = np.maximum(_ratio(error_b, bound), _ratio(difference, bound * stored))
    finite = np.where(np.isfinite(truth), np.abs(truth), 0.0)
    found = [finite, difference, error_a, error_b, bound, worst]
    return {
        name: float(values.max(initial=0.0)) for name, values in zip(FIGURES, found, strict=True)
    }


def difference_of(values: Array, truth: Array) -> Array:
    """``values - truth``, elementwise, with zero where both are equal, infinities included."""
    with np.errstate(invalid="ignore"):
        return np.where(values == truth, 0.0, values - truth)


def unbounded(number: int, truth: Array, other: Array, low_a: Array, low_b: Array) -> str | None:
    """Why outputs with NaN, or with infinities that are not equal, cannot agree."""
    for name, values in (("a", truth), ("b", other), ("a", low_a), ("b", low_b)):
        wrong = np.isnan(values)
        if wrong.any():
            return f"output {number} of {name} is NaN at {wrong.sum()} of {wrong.size} places"
    wrong = (np.isinf(truth) | np.isinf(other) | np.isinf(low_b)) & (
        (truth != other) | (truth != low_b)
    )
    if wrong.any():
        where = f"{wrong.sum()} of {wrong.size} places"
        return f"output {number} is infinite at {where} in one of the two and not in the other"
    return None


def silence(largest: dict[str, float], changes: list[bool]) -> str | None:
    """Why equal outputs would prove nothing, None where they prove something."""
    if not changes or (any(changes) and largest["largest"] > 0):
        return None
    if largest["largest"] == 0:
        return "the output is zero, whatever the kernels are; draw other variables or inputs"
    return "the output does not depend on the inputs; draw other variables or inputs"


def _ratio(error: Array, bound: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(error == 0, 0.0, error / bound)
    return np.where(np.isnan(ratio), np.inf, ratio)
