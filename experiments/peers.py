"""The same networks in JAX, PyTorch, ONNX Runtime and OpenVINO, side by side.

Every contestant is a process of its own with the same weights, images and number of threads.
They take turns, call by call, and wait for each other.

    python -m experiments.peers --networks repvgg_a0 --batches 1 8
"""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from matplotlib.figure import Figure
from rich.console import Console

from experiments import _tables
from experiments._contestants import CONTESTANTS, ONNX_RUNTIME, OPENVINO, OURS, TORCH, Entry
from experiments._worker import PREPARE, Worker

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # others want memory too


@dataclasses.dataclass(frozen=True)
class Config:
    """Time the re-parameterized networks of timm in several frameworks, alternating."""

    networks: tuple[str, ...] = ("repvgg_a0", "mobileone_s0", "fastvit_t8", "repvit_m0_9")
    """Names that repjax and timm share."""
    batches: tuple[int, ...] = (1, 8, 32)
    """Images per call."""
    dtypes: tuple[Literal["float32", "bfloat16", "float16"], ...] = ("float32",)
    """Types of weights and images; in training of what is computed, weights are float32."""
    task: Literal["inference", "training"] = "inference"
    """Inference, or loss and gradient of the native network."""
    form: Literal["fused", "native"] = "fused"
    """For inference."""
    contestants: tuple[str, ...] = tuple(CONTESTANTS)
    """Who takes part. Those that cannot run a task or a type are left out of it."""
    size: int | None = None
    """Height and width of the images; by default the network's own."""
    threads: int = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    """That each contestant may use."""
    rounds: int = 50
    """In each round every contestant makes two calls, of which the second is timed."""
    seconds: float = 60.0
    """Time per row after which no new round begins (five rounds are always made)."""
    pause: float = 0.01
    """Seconds between two turns, in which thread pools go to sleep."""
    budget: float = 60.0
    """Seconds that `repjax.compile` may take for each program."""
    peers_python: str = sys.executable
    """The interpreter that has torch, timm, onnxruntime and openvino (the extra `peers`)."""
    folder: Path = Path("runs/peers")
    """For state dicts, ONNX files and logs, which are kept for the next time."""
    output: Path = Path("runs/peers")
    """Folder for the results."""
    name: str = "peers"
    """Of the results: name.json, name.md, name.png."""
    add: bool = False
    """Keep the rows of an earlier run with this name, and replace those measured anew."""


def turns(workers: Sequence[Worker], config: Config) -> np.ndarray[Any, Any]:
    """Seconds of each contestant in each round, (contestants, rounds)."""
    rounds: list[list[float]] = []
    begin = time.perf_counter()
    while len(rounds) < config.rounds:
        if len(rounds) >= 5 and time.perf_counter() - begin > config.seconds:
            break
        found = []
        for worker in workers:
            time.sleep(config.pause)
            found.append(worker.seconds())
        rounds.append(found)
    return np.asarray(rounds).T


def takes_part(contestant: str, dtype: str, config: Config) -> bool:
    """Whether a contestant can run a type in this task and form."""
    fused = config.form == "fused" and config.task == "inference" and dtype == "float32"
    ours = contestant == OURS and config.task == "training"  # baked in, parameters cannot learn
    return (fused or contestant not in (ONNX_RUNTIME, OPENVINO)) and not ours


def measure(
    network: str, batch: int, dtype: str, config: Config, console: Console
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """A row for each contestant, and the versions of all."""
    from repjax import models

    size = config.size or models.create(network).config.preprocessing.input_size[0]
    folder = str(config.folder.resolve())

    def start(contestant: str) -> Worker:
        entry = Entry(
            *(contestant, network, batch, size, dtype, config.task, config.form),
            *(config.threads, folder, config.budget),
        )
        ours = "jax" in contestant
        log = config.folder / f"{contestant.replace(', ', '-')}.log"
        return Worker(entry, sys.executable if ours else config.peers_python, log)

    preparing = start(PREPARE)
    preparing.answer()
    preparing.close()
    wanted = [one for one in config.contestants if takes_part(one, dtype, config)]
    peers = {one: start(one) for one in wanted if "jax" not in one}  # they compile side by side
    workers, answers = [], []
    try:
        for contestant in sorted(wanted, key=lambda one: "jax" in one):  # these measure, alone
            console.log(f"{network}, batch {batch}, {dtype}: {contestant}")
            worker = peers.get(contestant) or start(contestant)
            try:
                answers.append(worker.answer())
                workers.append(worker)
            except RuntimeError as error:  # a framework that is missing, or refuses
                console.log(f"left out, {error}", style="red")
                worker.close()
        times = turns(workers, config)
    finally:
        for worker in {*workers, *peers.values()}:
            worker.close()
    names = [worker.entry.contestant for worker in workers]
    truth = np.asarray(answers[names.index(TORCH) if TORCH in names else 0]["outputs"])
    rows = []
    order = [names.index(one) for one in wanted if one in names]
    for name, answer, found in ((names[one], answers[one], times[one]) for one in order):
        cells = _tables.times(found)
        rows.append(
            {
                "network": network,
                "size": size,
                "batch": batch,
                "dtype": dtype,
                "task": config.task,
                "form": config.form,
                "contestant": name,
                **cells,
                "images_per_second": batch / cells["milliseconds"] * 1e3,
                "times_ours": ratio(found, times, names, OURS),
                "times_arguments": ratio(found, times, names, "repjax, arguments"),
                "rounds": len(found),
                "difference": _tables.difference(np.asarray(answer["outputs"]), truth),
                "compile_seconds": answer["compile_seconds"],
                "note": answer["note"],
            }
        )
    versions = {key: value for answer in answers for key, value in answer["versions"].items()}
    return rows, versions


def ratio(
    found: np.ndarray[Any, Any], times: np.ndarray[Any, Any], names: Sequence[str], ours: str
) -> float | None:
    """How many times as long it takes as ours: the median over the rounds."""
    if ours not in names:
        return None
    return float(np.median(found / times[names.index(ours)]))


def geometric_means(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Of what each contestant takes, in times of ours, over all rows."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if row["times_ours"] is not None:
            found.setdefault(row["contestant"], []).append(row["times_ours"])
    return {name: float(np.exp(np.mean(np.log(values)))) for name, values in found.items()}


def draw(rows: Sequence[dict[str, Any]], *, title: str) -> Figure:
    """Bars: a panel for each network, a group for each batch size and type."""
    return _tables.bars(
        [{**row, "group": f"{row['task']}\n{row['dtype']}\n{row['batch']}"} for row in rows],
        panel="network",
        group="group",
        bar="contestant",
        value="milliseconds",
        title=title,
        unit="ms per call (median, quartiles) by batch",
    )


KEYS = ("network", "size", "batch", "dtype", "task", "form", "contestant")
"""What tells rows apart."""

COLUMNS: tuple[_tables.Column, ...] = (
    ("network", "network", ""),
    ("batch", "batch", "d"),
    ("dtype", "dtype", ""),
    ("contestant", "contestant", ""),
    ("median ms", "milliseconds", ".2f"),
    ("quartiles", "spread", ""),
    ("images/s", "images_per_second", ".0f"),
    ("times ours", "times_ours", ".2f"),
    ("times ours, arguments", "times_arguments", ".2f"),
    ("difference", "difference", ".0e"),
    ("compile s", "compile_seconds", ".1f"),
    ("chosen", "note", ""),
)


def main(config: Config) -> list[dict[str, Any]]:
    """Run the comparison, print the table, write JSON, table and figure."""
    from experiments._machine import describe

    console = Console(stderr=True)
    config.folder.mkdir(parents=True, exist_ok=True)
    environment, rows = describe(), []
    for network in config.networks:
        for dtype in config.dtypes:
            for batch in config.batches:
                found, versions = measure(network, batch, dtype, config, console)
                environment |= versions
                rows += found
                print(_tables.markdown(found, COLUMNS), flush=True)
    environment["threads"] = str(config.threads)
    means = geometric_means(rows)
    print(f"times ours, geometric means: {', '.join(f'{k} {v:.3f}' for k, v in means.items())}")
    figure = functools.partial(draw, title=environment["cpu"])
    keep = KEYS if config.add else ()
    _tables.write(config.output, config.name, environment, rows, COLUMNS, figure, keep=keep)
    return rows


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=__doc__))
    except RuntimeError as error:
        raise SystemExit(f"{error}\n(the extra `peers` has what is needed)") from None
