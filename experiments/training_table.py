"""Write the results of docs/training.md from the files of metrics in docs/benchmarks/training.

    python -m experiments.training_table
    python -m experiments.training_table --runs runs/table

The second takes the metrics over first, from runs in folders named FORM-SEED. Times and memory
are those of `python -m experiments.training_steps`.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import statistics
from pathlib import Path
from typing import Any

import tyro

from experiments.train import curves, log
from repjax._files import replacing

PAGE = Path("docs/training.md")
FIGURE = Path("docs/benchmarks/training/curves.png")
METRICS = Path("docs/benchmarks/training")
BEGIN = "<!-- results: written by python -m experiments.training_table -->"
END = "<!-- end of the results -->"
FORMS = ("plain", "multi", "online", "gradient")


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the table."""

    runs: Path | None = None
    """Folder of finished runs, whose metrics replace the committed ones."""


def collect(runs: Path) -> None:
    """Take the metrics of runs over.

    Args:
        runs: a folder of folders named FORM-SEED.
    """
    METRICS.mkdir(parents=True, exist_ok=True)
    for form in FORMS:
        for folder in sorted(runs.glob(f"{form}-*")):
            shutil.copy(folder / "metrics.jsonl", METRICS / f"{folder.name}.jsonl")
            shutil.copy(folder / "result.json", METRICS / f"{folder.name}.json")


def results(form: str) -> list[dict[str, Any]]:
    """What the runs of a form ended with, by seed.

    Args:
        form: its name.
    """
    return [json.loads(path.read_text()) for path in sorted(METRICS.glob(f"{form}-*.json"))]


def text() -> str:
    """The results, in Markdown."""
    found = {form: results(form) for form in FORMS}
    one = found["plain"][0]
    named = ", ".join(f"{key} {value}" for key, value in one["environment"].items())
    seeds = ", ".join(str(result["seed"]) for result in found["plain"])
    return "\n\n".join(
        [
            f"Seeds {seeds}; trained on {named}.",
            accuracies(found),
            flips(found),
            "![Loss and accuracy of all runs](benchmarks/training/curves.png)",
            costs(json.loads((METRICS / "steps.json").read_text())),
        ]
    )


def accuracies(found: dict[str, list[dict[str, Any]]]) -> str:
    """The table of accuracies.

    Args:
        found: results by form.
    """
    lines = [
        "| form | test accuracy, mean of the seeds | spread (min to max) | fused | less plain, by "
        "seed | convolutions, trained | fused |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for form, several in found.items():
        before = [result["test_accuracy"] for result in several]
        after = [result["test_accuracy_fused"] for result in several]
        pairs = zip(before, (result["test_accuracy"] for result in found["plain"]), strict=True)
        gains = "" if form == "plain" else ", ".join(f"{100 * (a - b):+.2f}" for a, b in pairs)
        trained, fused = several[0]["convolutions"]
        lines.append(
            f"| {form} | {statistics.mean(before):.2%} | {min(before):.2%} to {max(before):.2%} | "
            f"{statistics.mean(after):.2%} | {gains} | {trained} | {fused} |"
        )
    return "\n".join(lines)


def flips(found: dict[str, list[dict[str, Any]]]) -> str:
    """Predictions that fusing changed, each with its margin, and the largest move of a logit.

    Args:
        found: results by form.
    """
    several = [result for results_of in found.values() for result in results_of]
    moved = max(result["largest_move_of_a_logit"] for result in several)
    lines = [
        f"- {result['form']}, seed {result['seed']}: test image {one['image']}, class "
        f"{one['predicted'][0]} before and {one['predicted'][1]} after fusing, with a margin of "
        f"{one['margin_before']:.1e} between both logits"
        for result in several
        for one in result["flipped"]
    ]
    head = (
        f"`repjax.verify` held for {sum(result['verified'] for result in several)} of "
        f"{len(several)} networks; no logit moved by more than {moved:.1e}. Predictions that "
        f"fusing changed, in {len(several)} x 10,000:"
    )
    return f"{head} none." if not lines else "\n".join([head, "", *lines])


def costs(report: dict[str, Any]) -> str:
    """The table of what a step costs.

    Args:
        report: as `experiments.training_steps` writes it.
    """
    named = ", ".join(f"{key} {value}" for key, value in report["environment"].items())
    lines = [
        f"One training step at batch {report['batch_size']}, float32, median of {report['rounds']} "
        f"alternating steps and quartiles, on {named}:",
        "",
        "| form, branches | ms | to plain | temporary memory, MB | to plain | convolutions, "
        "forward and backward |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in report["rows"]:
        low, high = row["quartiles"]
        lines.append(
            f"| {row['form']} | {row['milliseconds']:.1f} ({low:.1f} to {high:.1f}) | "
            f"{row['time_to_plain']:.2f} | {row['temporary_bytes'] / 1e6:.1f} | "
            f"{row['memory_to_plain']:.2f} | {row['convolutions']} |"
        )
    return "\n".join(lines)


def page(old: str) -> str:
    """The page with its results written anew.

    Args:
        old: the page, with the lines `BEGIN` and `END`.
    """
    head, _, rest = old.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{text()}\n\n{END}{tail}"


def main(config: Config) -> None:
    """Collect if asked to, and write page and figure.

    Args:
        config: the settings.
    """
    if config.runs is not None:
        collect(config.runs)
    with replacing(PAGE, force=True) as path:
        path.write_text(page(PAGE.read_text()))
    runs = {
        form: [log.read(path) for path in sorted(METRICS.glob(f"{form}-*.jsonl"))] for form in FORMS
    }
    with replacing(FIGURE, force=True) as path:
        curves.draw(runs).savefig(path, dpi=110, format="png")
    print(f"written: {PAGE}, {FIGURE}")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
