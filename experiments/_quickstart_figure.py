"""The figure of the quick start: kernels that add up to one, and inference times."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

import repjax
from repjax import algebra


def kernels_of_a_block(variables: Any, deployed: Any, name: str) -> dict[str, np.ndarray[Any, Any]]:
    """What each branch of a block adds to one slice of the fused kernel, norms folded in."""
    (equation,) = variables["params"][name]["conv"]
    branch = repjax.branches.parse(equation)
    arrays = variables["params"][name]["conv"][equation]
    stats = variables["batch_stats"][name]["conv"][equation]
    fused = deployed["params"][name]["conv"]["kernel"]
    features = fused.shape[-1]
    folded = {}
    for label, one in branch.named().items():  # type: ignore[attr-defined]
        leaves = {**arrays.get(label, {})}
        leaves["norm"] = {**leaves["norm"], **stats[label]["norm"]}
        conv = one.fold(leaves, features, 1, 2)
        kernel = algebra.embed(algebra.regroup(conv, 1), 3, low=1).kernel
        folded[label] = np.asarray(kernel)
    largest = [np.abs(kernel).max((0, 1)).diagonal() for kernel in folded.values()]
    channel = int(np.prod(largest, axis=0).argmax())  # one where every branch shows
    slices = {label: kernel[:, :, channel, channel] for label, kernel in folded.items()}
    return {**slices, "fused": np.asarray(fused)[:, :, channel, channel]}


def draw(
    kernels: dict[str, np.ndarray[Any, Any]], rows: list[dict[str, Any]], title: str
) -> Figure:
    """Branch kernels that add up to the fused one; below, the inference times."""
    figure = Figure(figsize=(9, 5.6), layout="constrained")
    grid = figure.add_gridspec(2, 1, height_ratios=(1, 1.1))
    above, below = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    above.suptitle("one slice of a block's kernels, batch norm folded in", fontsize=10)
    panels = above.subplots(1, len(kernels))
    limit = max(float(np.abs(kernel).max()) for kernel in kernels.values())
    signs = ["", *["+  "] * (len(kernels) - 2), "=  "]
    names = {"identity": "input"}
    for sign, panel, (label, kernel) in zip(signs, panels, kernels.items(), strict=True):
        panel.imshow(kernel, cmap="RdBu_r", vmin=-limit, vmax=limit)
        for (row, column), value in np.ndenumerate(kernel):
            color = "white" if abs(value) > 0.6 * limit else "black"
            panel.text(column, row, f"{value:.2f}", ha="center", va="center", color=color)
        panel.set_title(f"{sign}{names.get(label, label)}", fontsize=11)
        panel.set_xticks([])
        panel.set_yticks([])
    bars = below.subplots()
    options = list(dict.fromkeys(row["options"] for row in rows))
    for offset, form in ((-0.2, "multi-branch"), (0.2, "fused")):
        found = [row for row in rows if row["form"] == form]
        places = np.arange(len(options)) + offset
        heights = [row["milliseconds"] for row in found]
        spread = [
            [max(row["milliseconds"] - row["quartiles"][0], 0) for row in found],
            [max(row["quartiles"][1] - row["milliseconds"], 0) for row in found],
        ]
        drawn = bars.barh(places, heights, 0.38, xerr=spread, label=form, capsize=3)
        bars.bar_label(drawn, [f" {height:.2f} ms" for height in heights], padding=3)
    bars.set_yticks(np.arange(len(options)), [f"compile options:\n{name}" for name in options])
    bars.set_xlabel(f"inference, ms per call (median, quartiles)\n{title}", fontsize=9)
    bars.margins(x=0.2)
    bars.invert_yaxis()
    bars.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure
