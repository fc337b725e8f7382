"""What one training step costs in each form: time, and memory for intermediate results.

    python -m experiments.training_steps --folder PATH

The recipe is that of Fashion-MNIST, the batch 128 or more. Steps of all forms alternate in one
process, on the same batch, with `repjax.compiler_options()`; the state is handed on from step to
step. Memory is what the compiler reserves for temporary values; parameters and the optimizer's
state are arguments, and do not count.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before JAX; see repjax.compiler_options

import jax
import tyro

from experiments import timing
from experiments._machine import describe
from experiments.train.config import FormName
from experiments.train.recipes import fashion_mnist
from experiments.train.task import Task, make_task
from repjax._files import replacing
from repjax.counting import operations_in

FORMS: tuple[tuple[FormName, str], ...] = (
    ("plain", "repvgg"),
    ("multi", "repvgg"),
    ("online", "repvgg"),
    ("online", "orepa"),
    ("gradient", "repvgg"),
)
"""Form, and the branches that online and gradient add; the first is what others relate to."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the measurement."""

    folder: Path
    """Where the IDX files of Fashion-MNIST are."""
    batch_size: int = 128
    """Images per step."""
    rounds: int = 200
    """Steps of each form at most."""
    seconds: float = 60.0
    """After which no further round begins."""
    output: Path = Path("docs/benchmarks/training/steps.json")
    """File to write."""


@dataclasses.dataclass(frozen=True)
class Step:
    """A compiled step that hands its state on.

    Args:
        name: of the form.
        temporary: bytes for intermediate results.
        convolutions: in the traced program, forward and backward.
        run: one step.
    """

    name: str
    temporary: int
    convolutions: int
    run: Callable[[], Any]


def compiled(task: Task, name: str, batch: tuple[Any, ...]) -> Step:
    """The step of a task, compiled.

    Args:
        task: of the form.
        name: of the form.
        batch: images and labels, on the devices.
    """
    state = task.initial_state()
    traced = task.step.trace(state, *batch)
    convolutions = operations_in(traced.jaxpr)["conv_general_dilated"]
    program = traced.lower().compile()
    held = [state]

    def run() -> None:
        held[0], metrics = program(held[0], *batch)
        jax.block_until_ready((held[0], metrics))  # type: ignore[no-untyped-call]

    temporary = int(program.memory_analysis().temp_size_in_bytes)
    return Step(name, temporary, convolutions, run)


def main(config: Config) -> list[dict[str, Any]]:
    """Measure all forms, print and write what was found.

    Args:
        config: the settings.

    Returns:
        A row per form.
    """
    found: list[Step] = []
    batch: tuple[Any, ...] = ()
    recipe = fashion_mnist.CONFIG
    for form, branches in FORMS:
        settings = dataclasses.replace(
            recipe,
            data=dataclasses.replace(recipe.data, folder=config.folder),
            network=dataclasses.replace(recipe.network, form=form, branches=branches),
            optimizer=dataclasses.replace(recipe.optimizer, batch_size=config.batch_size),
            run=dataclasses.replace(recipe.run, devices=1),
        )
        task = make_task(settings)
        batch = batch or task.there.divide(next(task.batches(0)))
        name = f"{form}, {branches}" if form in ("online", "gradient") else form
        found.append(compiled(task, name, batch))
    times = timing.alternate(found, repeats=config.rounds, seconds=config.seconds)
    rows: list[dict[str, Any]] = []
    for step, seconds in zip(found, times, strict=True):
        low, middle, high = timing.quartiles(seconds)
        rows.append(
            {
                "form": step.name,
                "milliseconds": middle,
                "quartiles": [low, high],
                "temporary_bytes": step.temporary,
                "convolutions": step.convolutions,
            }
        )
    for row in rows:
        row["time_to_plain"] = row["milliseconds"] / rows[0]["milliseconds"]
        row["memory_to_plain"] = row["temporary_bytes"] / rows[0]["temporary_bytes"]
        print(
            f"{row['form']:18} {row['milliseconds']:8.2f} ms ({row['time_to_plain']:.2f} x plain)"
            f"  {row['temporary_bytes'] / 1e6:7.1f} MB ({row['memory_to_plain']:.2f} x plain)"
            f"  {row['convolutions']} convolutions"
        )
    report = {
        "environment": describe(),
        "batch_size": config.batch_size,
        "rounds": len(times[0]),
        "rows": rows,
    }
    config.output.parent.mkdir(parents=True, exist_ok=True)
    with replacing(config.output, force=True) as path:
        path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"on {report['environment']}; written: {config.output}")
    return rows


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
