"""The metrics of one run or of several, as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from experiments.train.log import Record


def draw(runs: Mapping[str, Sequence[Sequence[Record]]]) -> Figure:
    """Loss and accuracy by epoch: of training batches thin, of the watched images thick.

    Args:
        runs: by name, the records of one run or of several.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = dict(zip(("loss", "accuracy"), figure.subplots(1, 2), strict=True))
    lowest = 1.0
    for number, (name, several) in enumerate(runs.items()):
        for run, records in enumerate(several):
            trained = [record for record in records if "loss" in record]
            watched = [record for record in records if "watched_loss" in record]
            lowest = min([lowest, *(record["watched_accuracy"] for record in watched)])
            for key, panel in panels.items():
                color, label = f"C{number}", None if run else name
                thin = [[record[axis] for record in trained] for axis in ("epoch", key)]
                panel.plot(*thin, color=color, linewidth=0.6, alpha=0.4)
                thick = [
                    [record[axis] for record in watched] for axis in ("epoch", f"watched_{key}")
                ]
                panel.plot(*thick, color=color, marker="o", markersize=3, label=label)
    panels["loss"].set_yscale("log")
    panels["accuracy"].set_ylim(max(0.0, lowest - 0.05), 1.005)
    for key, panel in panels.items():
        panel.set_ylabel(f"{key} (thin: training batches)")
        panel.set_xlabel("epochs")
        panel.grid(alpha=0.3)
    if len(runs) > 1:
        panels["accuracy"].legend(loc="lower right")
    return figure
