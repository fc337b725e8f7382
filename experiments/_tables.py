"""Rows of a benchmark as a Markdown table, as JSON and as bars."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from repjax._files import replacing

Row = Mapping[str, Any]
Column = tuple[str, str, str]
"""Its head, the key of the row, and how a value is written, as in `format`."""


def markdown(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """Rows as a Markdown table; what a row lacks is left empty."""
    lines = [_line([head for head, _, _ in columns])]
    lines.append(_line(["---" if not style else "---:" for _, _, style in columns]))
    for row in rows:
        lines.append(_line([_cell(row.get(key), style) for _, key, style in columns]))
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: Any, style: str) -> str:
    if value is None:
        return ""
    return format(value, style)


def times(seconds: np.ndarray[Any, Any]) -> dict[str, Any]:
    """The cells that tell a time: median and quartiles of seconds (calls,), in milliseconds."""
    low, middle, high = map(float, np.percentile(seconds * 1e3, [25, 50, 75]))
    return {
        "milliseconds": middle,
        "quartiles": [low, high],
        "spread": f"{low:.2f} to {high:.2f}",
    }


def difference(found: np.ndarray[Any, Any], truth: np.ndarray[Any, Any]) -> float:
    """Largest difference, relative to the largest true output."""
    return float(np.abs(found - truth).max() / np.abs(truth).max())


def write(
    folder: Path,
    name: str,
    environment: Mapping[str, str],
    rows: Sequence[Row],
    columns: Sequence[Column],
    figure: Callable[[Sequence[Row]], Figure],
    *,
    keep: Sequence[str] = (),
) -> list[Path]:
    """Write ``name.json``, ``name.md`` and ``name.png``, and print where.

    What was there is replaced.

    Args:
        folder: is made if it is missing.
        name: of the files.
        environment: what the rows were measured on.
        rows: of this run; each is given the command of the run.
        columns: of the table.
        figure: draws all rows.
        keep: keys that tell rows apart; with them, rows of the file that was there are kept,
            but for those that were measured anew.

    Returns:
        The paths.

    Raises:
        SystemExit: rows that would be kept were measured on something else.
    """
    paths = [folder / f"{name}.{ending}" for ending in ("json", "md", "png")]
    every = [{**row, "command": command()} for row in rows]
    if keep and paths[0].exists():
        every = _with_older(json.loads(paths[0].read_text()), environment, every, keep)
    commands = list(dict.fromkeys(row["command"] for row in every))
    numbered = [{**row, "number": commands.index(row["command"]) + 1} for row in every]
    page = markdown(numbered, [*columns, ("command", "number", "d")])
    page += "\n" + "".join(f"{place}. `{one}`\n" for place, one in enumerate(commands, 1))
    page += "\n" + "".join(f"* {key}: {value}\n" for key, value in environment.items())
    folder.mkdir(parents=True, exist_ok=True)
    report = {"environment": dict(environment), "rows": every}
    with replacing(paths[0], force=True) as path:
        path.write_text(json.dumps(report, indent=1) + "\n")
    with replacing(paths[1], force=True) as path:
        path.write_text(page)
    with replacing(paths[2], force=True) as path:
        figure(every).savefig(path, format="png", dpi=100)
    print("\n".join(f"{key}: {value}" for key, value in environment.items()))
    print(f"written: {', '.join(map(str, paths))}")
    return paths


def _with_older(
    older: Mapping[str, Any],
    environment: Mapping[str, str],
    rows: list[dict[str, Any]],
    keep: Sequence[str],
) -> list[dict[str, Any]]:
    """The rows of an older file that were not measured anew, and these."""
    for fact in ("cpu", "device", "python", "jax", "jaxlib"):
        if older["environment"].get(fact) != environment.get(fact):
            raise SystemExit(
                f"rows measured with {fact} {older['environment'].get(fact)} are there, these "
                f"have {environment.get(fact)}: choose another --name"
            )

    def identity(row: Row) -> tuple[Any, ...]:
        return tuple(row.get(key) for key in keep)

    new = {identity(row) for row in rows}
    return [*(row for row in older["rows"] if identity(row) not in new), *rows]


def command() -> str:
    """How this process was started, with Python's own name instead of its path."""
    arguments = list(sys.argv)
    main: Any = sys.modules["__main__"]
    if spec := getattr(main, "__spec__", None):
        arguments = ["python", "-m", spec.name.removesuffix(".__main__"), *arguments[1:]]
    else:
        arguments = [os.path.basename(arguments[0]), *arguments[1:]]
    return shlex.join(arguments)


def bars(
    rows: Sequence[Row], *, panel: str, group: str, bar: str, value: str, title: str, unit: str
) -> Figure:
    """Bars in groups, a panel for each thing that is measured, on a logarithmic scale.

    Args:
        rows: with these keys, and ``quartiles``, a pair in the unit of the value.
        panel: key that says in which panel a row is.
        group: key that says in which group.
        bar: key that says what the bar is called.
        value: key of the height.
        title: above all panels.
        unit: of the height.
    """
    panels = list(dict.fromkeys(row[panel] for row in rows))
    names = list(dict.fromkeys(row[bar] for row in rows))
    figure = Figure(figsize=(max(7.5, 3.6 * len(panels)), 4.4), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    width = 0.84 / len(names)
    for axis, which in zip(axes, panels, strict=True):
        groups = list(dict.fromkeys(row[group] for row in rows if row[panel] == which))
        for offset, name in enumerate(names):
            found = [row for row in rows if row[panel] == which and row[bar] == name]
            places = [groups.index(row[group]) + (offset + 0.5) * width - 0.42 for row in found]
            heights = [row[value] for row in found]
            spread = np.array(
                [
                    [max(row[value] - row["quartiles"][0], 0) for row in found],
                    [max(row["quartiles"][1] - row[value], 0) for row in found],
                ]
            )
            axis.bar(places, heights, 0.92 * width, yerr=spread, label=name, error_kw={"lw": 0.7})
        axis.set_xticks(range(len(groups)), [str(one) for one in groups], fontsize=8)
        axis.set_yscale("log")
        axis.set_title(str(which), fontsize=9)
    axes[0].set_ylabel(unit)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8)
    figure.suptitle(title, fontsize=9)
    return figure
