"""The run: from settings to a trained, fused and verified network."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import jax
from jax.experimental import multihost_utils
from rich.console import Console

from experiments._machine import describe
from experiments.train import curves, devices, log
from experiments.train import step as steps
from experiments.train.checkpoints import Checkpoints
from experiments.train.config import Config
from experiments.train.errors import RunError
from experiments.train.finish import finish
from experiments.train.folders import Folder
from experiments.train.task import Task, make_task
from repjax._files import replacing


def run(config: Config, name: str = "run", console: Console | None = None) -> dict[str, Any]:
    """Train, fuse, verify, draw.

    Args:
        config: the settings.
        name: of the recipe, for the folder.
        console: to print on.

    Returns:
        What is written to result.json.

    Raises:
        RunError: what a user can put right; the last good checkpoint is kept.
    """
    begin = time.perf_counter()
    devices.connect(config.run)
    task = make_task(config)
    main = task.there.main
    console = console or Console(quiet=not main)
    folder = Folder(config.run.output or Path("runs") / f"{name}-{config.network.form}")
    if main:
        folder.prepare(config)
    _wait("folder")
    checkpoints = Checkpoints(folder.checkpoints)
    try:
        state = train(task, checkpoints, folder, console)
        if config.finish.weights == "best" and checkpoints.best is not None:
            state = checkpoints.restore(checkpoints.best, state)
            console.print(f"weights of step {checkpoints.best}, the best on the watched images")
    finally:
        checkpoints.close()
    result = finish(
        config, task.form, steps.evaluated(state), task.splits, task.there, folder, console
    )
    if main:
        figure = curves.draw({task.form.name: [log.read(folder.metrics)]})
        with replacing(folder.path / "curves.png", force=True) as path:
            figure.savefig(path, dpi=150, format="png")
        named = ", ".join(f"{key} {value}" for key, value in describe().items())
        console.print(f"on {named}", highlight=False)
        console.print(f"written to {folder.path}: metrics, curves, checkpoints, both networks")
        console.print(f"{time.perf_counter() - begin:.0f} seconds in all", highlight=False)
    return result


def train(task: Task, checkpoints: Checkpoints, folder: Folder, console: Console) -> steps.State:
    """The state after the last step.

    Args:
        task: of the run.
        checkpoints: of the run; it goes on after the last of them.
        folder: of the run.
        console: to print on.

    Raises:
        RunError: the loss is no number, an image is damaged, or a checkpoint cannot be written.
    """
    config, there, size = task.config, task.there, task.config.optimizer.batch_size
    state = task.initial_state()
    start = checkpoints.last or 0
    if start:
        state = checkpoints.restore(start, state)
        console.print(f"going on after step {start} of {task.total}", highlight=False)
    every = config.run.save_every or task.per_epoch
    path = folder.metrics if there.main else None
    with log.Log(path, console, task.total, start) as book, _Profile(config, folder) as profile:
        for number, batch in enumerate(task.batches(start), start + 1):
            profile.step(number - start)
            state, metrics = task.step(state, *there.divide(batch))
            epoch, accuracy = number / task.per_epoch, None
            if number == start + 1:
                float(metrics["loss"])  # compiled, and run
                book.restart_clock(number)
            ended, saves = number % task.per_epoch == 0, number % every == 0
            if number % config.run.log_every == 0 or ended or saves:
                values = {name: float(value) for name, value in metrics.items()}
                if not math.isfinite(values["loss"]):
                    raise RunError(
                        f"step {number}: the loss is {values['loss']}; a lower --learning-rate, or "
                        "a longer --warmup; the last good checkpoint is kept"
                    )
                book.train(number, epoch, size, values)
            if ended:
                found = task.watch(steps.evaluated(state))
                book.watch(number, epoch, found)
                accuracy = found["watched_accuracy"]
            if ended or saves:
                checkpoints.save(number, state, accuracy)
                book.restart_clock(number)
    return state


class _Profile:
    """A trace of the steps 10 to 20 of this process, where it is asked for."""

    def __init__(self, config: Config, folder: Folder) -> None:
        self.path = folder.path / "profile"
        self.wanted = config.run.profile
        self.running = False

    def step(self, number: int) -> None:
        """Begin or end before a step, counted from the start of this process."""
        if self.wanted and number == 10:
            jax.profiler.start_trace(str(self.path))
            self.running = True
        elif number == 20:
            self._end()

    def _end(self) -> None:
        if self.running:
            jax.profiler.stop_trace()  # type: ignore[no-untyped-call]
            self.running = False

    def __enter__(self) -> _Profile:
        return self

    def __exit__(self, *_: Any) -> None:
        self._end()


def _wait(name: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
