"""Write docs/families.md: every network with its counts in both forms, and its largest error.

Run from the repository's root: ``python -m experiments.families_table [names...]``. Counts are
those of the full networks, by shape evaluation. Errors are measured on small versions of them
(fewer blocks, fewer channels) with random statistics, in float64 and in float32.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import repjax
from repjax import models
from tests.models.counting import Counts, count, count_deployed
from tests.models.values import random_variables

TARGET = Path("docs/families.md")
HEADER = """# Families

Every network of `repjax.models.create`, in train form and in deploy form (`model.deploy()`, whose
variables `repjax.fuse_params` makes). This page is written by `python -m
experiments.families_table`; edit that.

* **Parameters**: trained ones, without running statistics, at 1000 classes.
* **Convolutions**: in the traced program; matrix products (heads, squeeze-excites) do not count.
* **Norms left**: batch norms of the deploy form, of those in train form. They stay where no
  neighbour can take them exactly: before a zero-padded convolution, after something that is not
  affine.
* **Largest error**: max |deploy - train| / max |train| of the outputs, in float64 and in float32,
  measured on a small version of each network (at most two blocks per stage, 8 channels in the
  first stage and the others in proportion, or a quarter of the width; images of 64x64) with
  random weights and random running statistics, on a CPU.

"""
COLUMNS = (
    "network",
    "parameters, train",
    "deploy",
    "convolutions, train",
    "deploy",
    "norms left",
    "largest error, float64",
    "float32",
)


def small(name: str) -> models.Network:
    """The network with few blocks and few channels, its structure otherwise kept."""
    config: Any = models.create(name).config
    fields = {field.name for field in dataclasses.fields(config)}
    changes: dict[str, Any] = {}
    if "depths" in fields:
        changes["depths"] = tuple(min(depth, 2) for depth in config.depths)
    if "widths" in fields:
        changes["widths"] = tuple(8 * round(width / config.widths[0]) for width in config.widths)
    if "width" in fields:
        changes["width"] = config.width / 4
    if "head_features" in fields:
        changes["head_features"] = 8
    return models.create(name, num_classes=10, **changes)


def errors(name: str) -> tuple[float, float]:
    """Largest relative difference between the forms of the small network, in both precisions."""
    found = []
    for dtype in (jnp.float64, jnp.float32):
        model = small(name).clone(param_dtype=dtype)
        x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 64, 64, 3)), dtype)
        variables = random_variables(jax.eval_shape(model.init, jax.random.key(0), x))
        deployed = repjax.fuse_params(variables)
        train = quick(model.apply, variables, x)
        deploy = quick(model.deploy().apply, deployed, x)
        found.append(float(np.abs(deploy - train).max() / np.abs(train).max()))
    return found[0], found[1]


def quick(apply: Any, variables: Any, x: Any) -> np.ndarray:
    """The output, compiled in little time and not for speed."""
    options: dict[str, Any] = {"xla_backend_optimization_level": 0}
    compiled = jax.jit(apply).lower(variables, x).compile(compiler_options=options)
    return np.asarray(compiled(variables, x))


def row(name: str) -> str:
    """The line of a network."""
    model = models.create(name)
    with jax.enable_x64(False):
        train: Counts = count(model)
        deploy: Counts = count_deployed(model)
    with jax.enable_x64(True):
        wide, narrow = errors(name)
    cells = [
        f"`{name}`",
        f"{train.parameters:,}",
        f"{deploy.parameters:,}",
        str(train.convolutions),
        str(deploy.convolutions),
        f"{deploy.norms} of {train.norms}",
        f"{wide:.0e}",
        f"{narrow:.0e}",
    ]
    return line(cells)


def line(cells: Sequence[str]) -> str:
    """Cells as a line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def main(names: list[str]) -> None:
    """Print the lines of some networks, or write the page with those of all."""
    lines = []
    for name in names or models.names():
        lines.append(row(name))
        print(lines[-1], flush=True)
    if not names:
        TARGET.parent.mkdir(exist_ok=True)
        rule = line(["---", *["---:"] * (len(COLUMNS) - 1)])
        TARGET.write_text(HEADER + "\n".join([line(COLUMNS), rule, *lines]) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
