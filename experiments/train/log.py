"""What a run tells while it goes on: lines of JSON in a file, a bar on the terminal."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from repjax._files import replacing

Record = dict[str, Any]


def read(path: Path) -> list[Record]:
    """The lines of a file of metrics; a last line that was cut off is left out.

    Args:
        path: of the file; one that is missing has none.
    """
    if not path.exists():
        return []
    whole = path.read_text().rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines()]


class Log:
    """Metrics of one run.

    Args:
        path: of the file of metrics; None writes none (another process does).
        console: to print on.
        total: steps of the whole run.
        start: steps that were made before; lines of later steps are dropped.
    """

    def __init__(self, path: Path | None, console: Console, total: int, start: int) -> None:
        self.console = console
        self.file = None
        if path is not None:
            kept = [record for record in read(path) if record["step"] <= start]
            with replacing(path, force=True) as new:
                new.write_text("".join(f"{json.dumps(record)}\n" for record in kept))
            self.file = path.open("a", buffering=1)
        columns = (
            TextColumn("{task.fields[epoch]}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[words]}"),
            TimeRemainingColumn(),
        )
        hidden = path is None or not console.is_terminal
        self.bar = Progress(*columns, console=console, disable=hidden, transient=True)
        self.task = self.bar.add_task("steps", total=total, completed=start, epoch="", words="")
        self.clock = time.perf_counter()
        self.at = start

    def __enter__(self) -> Log:
        self.bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.bar.stop()
        if self.file is not None:
            self.file.close()

    def write(self, record: Record) -> None:
        """One line of metrics."""
        if self.file is not None:
            self.file.write(f"{json.dumps(record)}\n")

    def restart_clock(self, step: int) -> None:
        """Leave out of the speed what was not training: compiling, evaluating, saving."""
        self.clock, self.at = time.perf_counter(), step

    def train(self, step: int, epoch: float, batch_size: int, metrics: Record) -> None:
        """Metrics of a training step, and the speed since the last ones.

        Args:
            step: steps that were made.
            epoch: passes that were made.
            batch_size: images per step.
            metrics: numbers by name.
        """
        seconds = time.perf_counter() - self.clock
        speed = (step - self.at) * batch_size / max(seconds, 1e-9)
        self.restart_clock(step)
        self.write({"step": step, "epoch": epoch, **metrics, "images_per_second": speed})
        words = f"loss {metrics['loss']:.3f}  {metrics['accuracy']:.1%}  {speed:,.0f} images/s"
        self.bar.update(self.task, completed=step, epoch=f"epoch {epoch:.1f}", words=words)

    def watch(self, step: int, epoch: float, metrics: Record) -> None:
        """Loss and accuracy on the images that are watched.

        Args:
            step: steps that were made.
            epoch: passes that were made.
            metrics: numbers by name.
        """
        self.write({"step": step, "epoch": epoch, **metrics})
        if self.file is not None:
            shown = "  ".join(
                f"{name.replace('_', ' ')} {value:.2%}"
                if "accuracy" in name
                else f"{name.replace('_', ' ')} {value:.4f}"
                for name, value in metrics.items()
            )
            self.console.print(f"epoch {epoch:.0f}  {shown}", highlight=False)
