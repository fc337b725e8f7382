"""How fast a network is in its forms: native, fused by the tree, fused by tracing.

    python -m experiments.benchmark --models repvgg_a0 mobileone_s0 --batches 1 8
    python -m experiments.benchmark --models my_package.networks:make --size 128
    python -m experiments.benchmark --tasks training --models experiments.networks:dense_row

All programs of one network, size, type and task are in one process and take turns, so that the
ratios between them hold on a noisy machine too.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import tyro
from matplotlib.figure import Figure
from rich.console import Console

from experiments import _programs, _tables, timing
from experiments._machine import describe, peak
from experiments._programs import Form, Network, Task


@dataclasses.dataclass(frozen=True)
class Config:
    """Time networks in their forms, alternating, and count what they do."""

    models: tuple[str, ...] = ("repvgg_a0", "mobileone_s0")
    """Names of `repjax.models`; a user's module:function, which returns a Flax module; or
    "families", which is the first network of each."""
    forms: tuple[str, ...] = ("native", "fused", "fused by tracing", "through the fold", "plain")
    """Which forms: the first three in inference, "native" and the last two in training."""
    tasks: tuple[Task, ...] = ("inference",)
    """Inference; training is loss and gradient."""
    options: tuple[Literal["default", "best", "constants"], ...] = ("default", "best")
    """Plain jax.jit; repjax.compile (in training repjax.compiler_options); repjax.compile with
    the variables baked in (in inference alone, and not of the native form)."""
    batches: tuple[int, ...] = (1, 8)
    """Images per call."""
    sizes: tuple[int, ...] = (224,)
    """Height and width of the images."""
    dtypes: tuple[_programs.Dtype, ...] = ("float32",)
    """Types of variables and images; in training of what is computed, variables are float32."""
    repeats: int = 50
    """Rounds of timing at most; in each round every program runs once."""
    seconds: float = 60.0
    """Time per row of programs after which no new round begins."""
    budget: float = 60.0
    """Seconds that repjax.compile may take for a program."""
    device: Literal["default", "cpu", "gpu", "tpu"] = "default"
    """Where it runs."""
    output: Path = Path("runs/benchmark")
    """Folder for the results."""
    name: str = "benchmark"
    """Of the results: name.json, name.md, name.png."""
    add: bool = False
    """Keep the rows of an earlier run with this name, and replace those measured anew."""


def programs(one: Network, task: Task, config: Config) -> list[tuple[Form, timing.Program]]:
    """Every form with every option, compiled, in the order of the forms."""
    forms = _programs.inference_forms(one) if task == "inference" else _programs.training_forms(one)
    found = []
    for form in forms:
        if form.name not in config.forms:
            continue
        for options in config.options:
            if options == timing.CONSTANTS and (task == "training" or form.name == "native"):
                continue
            how: str = options
            if task == "training" and options == timing.BEST:
                how = timing.option_names()[-1]
            program = timing.compile_program(
                form.name, how, form.fn, form.variables, one.images, budget=config.budget
            )
            found.append((form, program))
    return found


def measure(
    name: str, batch: int, size: int, dtype: _programs.Dtype, task: Task, config: Config
) -> list[dict[str, Any]]:
    """A row for each program of a network, a size, a type and a task."""
    one = _programs.network(name, batch, size, dtype, task)
    compiled = programs(one, task, config)
    times = timing.alternate(
        [program for _, program in compiled], repeats=config.repeats, seconds=config.seconds
    )
    outputs = [_first(program.run()) for _, program in compiled]
    flops, bandwidth = peak(dtype)
    by_name = {
        (program.name, program.options): found
        for (_, program), found in zip(compiled, times, strict=True)
    }
    rows = []
    for (form, program), found, output in zip(compiled, times, outputs, strict=True):
        cells = _tables.times(found)
        work, seconds = program.work, cells["milliseconds"] / 1e3
        rows.append(
            {
                "model": name,
                "task": task,
                "dtype": dtype,
                "size": size,
                "batch": batch,
                "form": form.name,
                "options": program.options,
                "chosen": program.note,
                **cells,
                "rounds": len(found),
                "images_per_second": batch / seconds,
                "native_over_this": _ratio(by_name.get(("native", timing.DEFAULT)), found),
                "this_over_plain": _ratio(found, by_name.get(("plain", program.options))),
                "convolutions": work.convolutions,
                "convolution_calls": program.convolution_calls,
                "gigaflops": work.flops / 1e9,
                "megabytes": work.bytes / 1e6,
                "temporary_megabytes": program.temporary_bytes / 1e6,
                "parameters": sum(leaf.size for leaf in jax.tree.leaves(form.variables)),
                "compile_seconds": program.compile_seconds,
                "of_peak_flops": work.flops / seconds / flops,
                "of_peak_bandwidth": work.bytes / seconds / bandwidth,
                "difference": _tables.difference(output, outputs[0]),
                "peak_gigaflops_per_second": flops / 1e9,
                "peak_gigabytes_per_second": bandwidth / 1e9,
            }
        )
    return rows


def _ratio(above: timing.Times | None, below: timing.Times | None) -> float | None:
    """How many times as long one takes as another: the median over the rounds."""
    return None if above is None or below is None else float(np.median(above / below))


def _first(result: Any) -> np.ndarray[Any, Any]:
    """The first array of a result: the outputs, or the loss."""
    return np.asarray(jax.tree.leaves(result)[0], np.float64)


COLUMNS: tuple[_tables.Column, ...] = (
    ("model", "model", ""),
    ("task", "task", ""),
    ("dtype", "dtype", ""),
    ("size", "size", "d"),
    ("batch", "batch", "d"),
    ("form", "form", ""),
    ("options", "options", ""),
    ("chosen", "chosen", ""),
    ("median ms", "milliseconds", ".2f"),
    ("quartiles", "spread", ""),
    ("images/s", "images_per_second", ".1f"),
    ("native / this", "native_over_this", ".2f"),
    ("this / plain", "this_over_plain", ".2f"),
    ("convs", "convolutions", "d"),
    ("calls", "convolution_calls", "d"),
    ("GFLOP", "gigaflops", ".3f"),
    ("MB", "megabytes", ".1f"),
    ("MB temporary", "temporary_megabytes", ".1f"),
    ("compile s", "compile_seconds", ".1f"),
    ("of peak FLOP/s", "of_peak_flops", ".0%"),
    ("of peak bytes/s", "of_peak_bandwidth", ".0%"),
    ("difference", "difference", ".0e"),
)

KEYS = ("model", "task", "dtype", "size", "batch", "form", "options")
"""What tells rows apart."""

LEGEND = """native / this: the time of the native form under plain jax.jit, in times of this one's.
this / plain: in training, its time in times of the plain network's under the same options.
convs, GFLOP, MB: of the program as written (two FLOP for each multiply-accumulate; what
convolutions and products read and write). calls: convolutions that the compiler left as calls.
MB temporary: for intermediate results. Peaks: a matrix product, a copy. difference: of the
outputs from the native form's, of the largest one; in training of the loss."""


def draw(rows: Sequence[dict[str, Any]], *, title: str) -> Figure:
    """Bars: a panel for each network, task, type and size, a group for each batch size."""
    panel = "{model}\n{task}, {dtype}, {size}"
    return _tables.bars(
        [
            {**row, "bar": f"{row['form']}, {row['options']}", "panel": panel.format(**row)}
            for row in rows
        ],
        panel="panel",
        group="batch",
        bar="bar",
        value="milliseconds",
        title=title,
        unit="ms per call (median, quartiles) by batch",
    )


def main(config: Config) -> list[dict[str, Any]]:
    """Measure, print the table, write JSON, table and figure."""
    if config.device != "default":
        jax.config.update("jax_platforms", config.device)  # type: ignore[no-untyped-call]
    console = Console(stderr=True)
    environment, rows = describe(), []
    names = [one for name in config.models for one in _named(name)]
    for name in names:
        for task in config.tasks:
            for dtype in config.dtypes:
                for size in config.sizes:
                    for batch in config.batches:
                        console.log(f"{name}, {task}, {dtype}, {size}x{size}, batch {batch}")
                        found = measure(name, batch, size, dtype, task, config)
                        print(_tables.markdown(found, COLUMNS), flush=True)
                        rows += found
                        jax.clear_caches()  # type: ignore[no-untyped-call]
    print(LEGEND)
    figure = functools.partial(draw, title=environment["cpu"])
    keep = KEYS if config.add else ()
    _tables.write(config.output, config.name, environment, rows, COLUMNS, figure, keep=keep)
    return rows


def _named(name: str) -> list[str]:
    return _programs.families() if name == "families" else [name]


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
