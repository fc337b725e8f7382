"""How long re-parameterizing a network takes: `repjax.fuse_params` and timm's function.

    python -m experiments.fusing --networks repvgg_a0 repvgg_b1

Every network is in a process of its own on each side, so that first calls are cold.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console

from experiments import _tables


@dataclasses.dataclass(frozen=True)
class Config:
    """Time the fusing of networks that repjax and timm share."""

    networks: tuple[str, ...] = ("repvgg_a0", "mobileone_s0", "fastvit_t8", "repvit_m0_9")
    """Their names."""
    repeats: int = 20
    """Calls after the first, of each kind."""
    peers_python: str = sys.executable
    """The interpreter that has torch and timm (the extra `peers`)."""
    output: Path = Path("runs/fusing")
    """Folder for the results."""
    name: str = "fusing"
    """Of the results: name.json, name.md, name.png."""


def calls(run: Callable[[], Any], repeats: int) -> list[float]:
    """Seconds of the first call and of those after it."""
    found = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return found


def ours(network: str, repeats: int) -> dict[str, list[float]]:
    """Seconds of `repjax.fuse_params`, eager and under jit."""
    import jax
    import jax.numpy as jnp

    import repjax
    from experiments.shrink import random_variables

    model = repjax.models.create(network)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
    variables = jax.block_until_ready(random_variables(shapes))  # type: ignore[no-untyped-call]
    jitted = jax.jit(repjax.fuse_params)

    def waiting(fold: Any) -> Callable[[], Any]:
        return lambda: jax.block_until_ready(fold(variables))  # type: ignore[no-untyped-call]

    return {
        "fuse_params": calls(waiting(repjax.fuse_params), repeats),
        "jitted fuse_params": calls(waiting(jitted), repeats),
    }


def theirs(network: str, repeats: int) -> dict[str, list[float]]:
    """Seconds of timm's `reparameterize_model`, which like ours leaves the network as it is."""
    from experiments import _timm

    model = _timm.create(network)
    return {
        "reparameterize_model": calls(lambda: _timm.reparameterized(model), max(repeats // 4, 1))
    }


SIDES: dict[str, Callable[[str, int], dict[str, list[float]]]] = {"ours": ours, "theirs": theirs}


def measure(network: str, config: Config) -> list[dict[str, Any]]:
    """A row for each function: its first call, those after it, and timm's in times of it."""
    found: dict[str, list[float]] = {}
    for side, python in (("ours", sys.executable), ("theirs", config.peers_python)):
        command = [python, "-m", "experiments.fusing", side, network, str(config.repeats)]
        output = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
        found |= json.loads(output.splitlines()[-1])
    first = {name: times[0] for name, times in found.items()}
    later = {name: float(np.median(times[1:])) for name, times in found.items()}
    rows = []
    for name, times in found.items():
        rows.append(
            {
                "network": network,
                "function": name,
                "first_milliseconds": first[name] * 1e3,
                **_tables.times(np.asarray(times[1:])),
                "calls": len(times) - 1,
                "timm_first_over_first": first["reparameterize_model"] / first[name],
                "timm_over_this": later["reparameterize_model"] / later[name],
            }
        )
    return rows


COLUMNS: tuple[_tables.Column, ...] = (
    ("network", "network", ""),
    ("function", "function", ""),
    ("first call, ms", "first_milliseconds", ".0f"),
    ("later, median ms", "milliseconds", ".1f"),
    ("quartiles", "spread", ""),
    ("timm / this, first call", "timm_first_over_first", ".1f"),
    ("timm / this, later", "timm_over_this", ".1f"),
)


def main(config: Config) -> list[dict[str, Any]]:
    """Measure, print the table, write JSON, table and figure."""
    from experiments._machine import describe

    console = Console(stderr=True)
    environment, rows = describe(), []
    for network in config.networks:
        console.log(network)
        rows += measure(network, config)
    print(_tables.markdown(rows, COLUMNS))
    draw = functools.partial(
        _tables.bars,
        panel="panel",
        group="network",
        bar="function",
        value="milliseconds",
        title=environment["cpu"],
        unit="ms per call (median, quartiles)",
    )
    rows = [{**row, "panel": "later calls"} for row in rows]
    _tables.write(config.output, config.name, environment, rows, COLUMNS, draw)
    return rows


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in SIDES:
        print(json.dumps(SIDES[sys.argv[1]](sys.argv[2], int(sys.argv[3]))))
    else:
        main(tyro.cli(Config, description=__doc__))
