"""The metrics of one run or of several, as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from experiments.train.log import Record


def draw(runs: Mapping[str, Sequence[Record]]) -> Figure:
    """Loss and accuracy by epoch: of training thin, of the watched images thick.

    Args:
        runs: records of each run, by its name.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    for number, (name, records) in enumerate(runs.items()):
        color = f"C{number}"
        trained = [record for record in records if "loss" in record]
        watched = [record for record in records if "watched_loss" in record]
        for panel, key in ((loss, "loss"), (accuracy, "accuracy")):
            panel.plot(
                [record["epoch"] for record in trained],
                [record[key] for record in trained],
                color=color,
                linewidth=0.6,
                alpha=0.5,
            )
            panel.plot(
                [record["epoch"] for record in watched],
                [record[f"watched_{key}"] for record in watched],
                color=color,
                marker="o",
                markersize=3,
                label=name,
            )
    loss.set_ylabel("loss (thin: training batches)")
    loss.set_yscale("log")
    accuracy.set_ylabel("accuracy")
    shown = [line.get_ydata() for line in accuracy.lines if line.get_marker() == "o"]
    lowest = min((min(map(float, values)) for values in shown if len(values)), default=0.0)
    accuracy.set_ylim(max(0.0, lowest - 0.05), 1.005)
    for panel in (loss, accuracy):
        panel.set_xlabel("epochs")
        panel.grid(alpha=0.3)
    if len(runs) > 1:
        accuracy.legend(loc="lower right")
    return figure
