"""What was merged, what was not, and why: as data and as text."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Iterable, Sequence

from repjax import primitives
from repjax.primitives import Kind
from repjax.tracing.plan import cost as costs
from repjax.tracing.plan.group import Group
from repjax.tracing.plan.naming import module_of_group
from repjax.tracing.plan.plan import Plan
from repjax.tracing.program.weights import reachable
from repjax.tracing.reasons import Kept, kept_apart

_SHOWN = ("conv", "dot", "pool", "scale", "move", "add")
_KERNELS = {"convolution": "conv", "product": "dot"}


@dataclasses.dataclass(frozen=True)
class Region:
    """One merged (or deliberately unmerged) part of the program.

    Args:
        path: module the part comes from, or its source line.
        operations: number of operations before, by kind.
        kernels: number of kernels after, by kind.
        macs_before: multiply-accumulates for one example, as written.
        macs_after: the same as fused.
        parameters_before: numbers stored, as written.
        parameters_after: the same as fused.
        merged: whether anything changed.
    """

    path: str
    operations: dict[str, int]
    kernels: dict[str, int]
    macs_before: int
    macs_after: int
    parameters_before: int
    parameters_after: int
    merged: bool


@dataclasses.dataclass(frozen=True)
class Report:
    """Regions, values kept apart, and totals; `print` shows a table."""

    regions: tuple[Region, ...]
    kept: tuple[Kept, ...]

    @property
    def reasons(self) -> dict[str, int]:
        """How often each reason occurred, most frequent first."""
        return dict(collections.Counter(kept.reason for kept in self.kept).most_common())

    @property
    def totals(self) -> Region:
        """The sum over all regions."""
        return Region(
            "total",
            _sum(region.operations for region in self.regions),
            _sum(region.kernels for region in self.regions),
            sum(region.macs_before for region in self.regions),
            sum(region.macs_after for region in self.regions),
            sum(region.parameters_before for region in self.regions),
            sum(region.parameters_after for region in self.regions),
            any(region.merged for region in self.regions),
        )

    def __str__(self) -> str:
        head = ("region", "before", "after", "MACs before", "after", "parameters before", "after")
        rows = [_row(region) for region in (*self.regions, self.totals)]
        lines = _table([head, *rows])
        rule = "-" * len(lines[0])
        lines = [lines[0], rule, *lines[1:-1], rule, lines[-1]]
        if self.kept:
            lines += ["", "kept apart"]
            for reason, number in self.reasons.items():
                places = dict.fromkeys(kept.path for kept in self.kept if kept.reason == reason)
                shown = ", ".join(list(places)[:3]) + (", ..." if len(places) > 3 else "")
                lines.append(f"  {number} x {reason} ({shown}){self._prices(reason)}")
        return "\n".join(lines)

    def _prices(self, reason: str) -> str:
        """Both prices of the first value that a reason of cost keeps apart."""
        priced = [kept.prices for kept in self.kept if kept.reason == reason and kept.prices]
        if not priced:
            return ""
        apart, together = priced[0]
        return f": {apart:,.0f} apart, {together:,.0f} together" + ", ..." * (len(priced) > 1)


def describe(plan: Plan, problem: str | None = None) -> Report:
    """The report of a plan; `problem` says why the whole program was kept as written."""
    regions = [_region(plan, group) for group in plan.division.groups if _is_told(group)]
    kept = kept_apart(plan)
    if problem is not None:
        kept.append(Kept("(root)", "fuse", problem))
    for inner, length in plan.inner.values():
        body = describe(inner)
        regions += [_times(region, length) for region in body.regions]
        kept += body.kept
    return Report(tuple(regions), tuple(kept))


def _times(region: Region, length: int) -> Region:
    """A region of a scan's body, counted for every turn."""
    return Region(
        f"{region.path} x {length}",
        {name: number * length for name, number in region.operations.items()},
        {name: number * length for name, number in region.kernels.items()},
        region.macs_before * length,
        region.macs_after * length,
        region.parameters_before * length,
        region.parameters_after * length,
        region.merged,
    )


def _is_told(group: Group) -> bool:
    names = {"reduce_window_sum"}
    heavy = any(one.kind is Kind.KERNEL or one.name in names for one in group.operations)
    return heavy or (group.merged and group.outcome is not None)


def _region(plan: Plan, group: Group) -> Region:
    before = _parameters_before(group)
    return Region(
        "/".join(module_of_group(group, plan.variables)) or "(root)",
        dict(collections.Counter(primitives.look_up(o.name).short for o in group.operations)),
        _kinds(group.after),
        round(sum(kernel.macs for kernel in group.before)),
        round(sum(kernel.macs for kernel in group.after)),
        before,
        _parameters_after(group) if group.merged else before,
        group.merged,
    )


def _kinds(kernels: Sequence[costs.Kernel]) -> dict[str, int]:
    counted = collections.Counter(
        _KERNELS.get(kernel.kind, kernel.kind) for kernel in kernels if kernel.kind != "weights"
    )
    return dict(counted)


def _parameters_before(group: Group) -> int:
    weights = [weight for one in group.operations for weight in one.weights]
    leaves = {weight for weight in reachable(weights) if weight.name == "variable"}
    return sum(math.prod(leaf.shape or ()) for leaf in leaves)


def _parameters_after(group: Group) -> int:
    weights = () if group.outcome is None else group.outcome.weights
    kept = {weight for weight in weights if weight.variables}
    return sum(math.prod(weight.shape or ()) for weight in kept)


def _sum(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: collections.Counter[str] = collections.Counter()
    for count in counts:
        total.update(count)
    return dict(total)


def _row(region: Region) -> tuple[str, ...]:
    numbers = (
        region.macs_before,
        region.macs_after,
        region.parameters_before,
        region.parameters_after,
    )
    before, after = _words(region.operations), _words(region.kernels)
    if not region.merged:
        after = "as written"
    return (region.path, before, after, *(f"{number:,}" for number in numbers))


def _words(counts: dict[str, int]) -> str:
    shown = [name for name in _SHOWN if counts.get(name)]
    words = [f"{counts[name]} {name}" for name in shown]
    rest = sum(number for name, number in counts.items() if name not in _SHOWN)
    return ", ".join(words + ([f"{rest} other"] if rest else [])) or "-"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if column < 3 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    longest = max(map(len, lines))
    return [line.ljust(longest) if line is lines[0] else line for line in lines]
