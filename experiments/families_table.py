"""Write docs/families.md: every network with its counts in both forms, and its largest error.

Run from the repository's root: ``python -m experiments.families_table [names...]``. Counts are
those of the full networks, by shape evaluation. Errors are measured on small versions of them
(see `experiments.shrink`) with random weights and statistics, in float64 and in float32.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import repjax
from experiments.shrink import random_variables, small
from repjax import models

TARGET = Path("docs/families.md")
HEADER = """# Families

Every network of `repjax.models.create`, in train form and in deploy form (`model.deploy()`, whose
variables `repjax.fuse_params` makes). This page is written by `python -m
experiments.families_table`; edit that.

* **Parameters**: trained ones, without running statistics, at 1000 classes.
* **Convolutions**: in the traced program; matrix products (heads, squeeze-excites) do not count.
* **Norms left**: batch norms of the deploy form, of those in train form. They stay where no
  neighbor can take them exactly: before a zero-padded convolution, after something that is not
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


def count(model: models.Network) -> tuple[int, int, int]:
    """Parameters, convolutions and batch norms of a network in its form, without any array."""
    shape = (1, 64, 64, model.in_channels)
    x = jax.ShapeDtypeStruct(shape, jnp.float32)  # type: ignore[no-untyped-call]
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    operations = repjax.count_operations(model.apply, variables, x)
    statistics = jax.tree_util.tree_leaves_with_path(variables.get("batch_stats", {}))
    norms = sum(path[-1].key == "mean" for path, _ in statistics)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    return parameters, operations["conv_general_dilated"], norms


def errors(name: str) -> tuple[float, float]:
    """Largest relative difference between the forms of the small network, in both precisions."""
    found = []
    for dtype in (jnp.float64, jnp.float32):
        model = small(name).clone(param_dtype=dtype)
        x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 64, 64, 3)), dtype)
        variables = random_variables(jax.eval_shape(model.init, jax.random.key(0), x))
        deployed = quick(repjax.fuse_params, variables)
        train = np.asarray(quick(model.apply, variables, x))
        deploy = np.asarray(quick(model.deploy().apply, deployed, x))
        found.append(float(np.abs(deploy - train).max() / np.abs(train).max()))
    return found[0], found[1]


def quick(function: Any, *arguments: Any) -> Any:
    """What a function returns, compiled in little time and not for speed."""
    options: dict[str, Any] = {"xla_backend_optimization_level": 0}
    compiled = jax.jit(function).lower(*arguments).compile(compiler_options=options)
    return compiled(*arguments)


def counts(name: str) -> list[str]:
    """The cells of a network that are counted."""
    model = models.create(name)
    with jax.enable_x64(False):
        train, deploy = count(model), count(model.deploy())
    return [
        f"`{name}`",
        f"{train[0]:,}",
        f"{deploy[0]:,}",
        str(train[1]),
        str(deploy[1]),
        f"{deploy[2]} of {train[2]}",
    ]


def row(name: str) -> str:
    """The line of a network."""
    with jax.enable_x64(True):
        wide, narrow = errors(name)
    return line([*counts(name), f"{wide:.0e}", f"{narrow:.0e}"])


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
