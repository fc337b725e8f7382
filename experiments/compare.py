"""One block, three forms: native, three KxK convolutions, fused; equal, counted and timed.

python -m experiments.compare --help
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

import repjax
from experiments import timing
from experiments._machine import describe
from repjax.algebra import Conv, identity_kernel, pad_kernel
from repjax.blocks import ResidualConv

FORMS = ("native", "three KxK", "fused")


@dataclasses.dataclass(frozen=True)
class Config:
    """Compare the residual block ``conv3x3(x) + conv1x1(x) + x`` in its three forms."""

    sizes: tuple[str, ...] = ("1x9x9x2", "1x56x56x64", "8x28x28x64")
    """Data sizes, batch x height x width x channels; the first is the block of ones."""
    kernel_size: int = 3
    """Taps per axis of the larger convolution."""
    dtypes: tuple[Literal["float32", "bfloat16", "float16"], ...] = ("float32", "bfloat16")
    """Types of data and parameters."""
    repeats: int = 100
    """Rounds of timing at most; in each round every form runs once."""
    seconds: float = 3.0
    """Time per size, type and compile option after which no new round begins."""
    seed: int = 0
    """Of the random kernels, biases and data."""
    output: Path = Path("runs/compare")
    """Folder for compare.json and compare.png."""


def three_kxk(variables: Any) -> list[Conv]:
    """Every branch as a convolution of its own with KxK taps; still three of them."""
    (node,) = variables["params"].values()
    big, small = node.values()
    size = big["kernel"].shape[:-2]
    features, dtype = big["kernel"].shape[-1], big["kernel"].dtype
    padding = [taps // 2 for taps in size]
    return [
        Conv(big["kernel"], big["bias"], padding=padding),
        Conv(pad_kernel(small["kernel"], size), small["bias"], padding=padding),
        Conv(identity_kernel(size, features, dtype=dtype), padding=padding),
    ]


def apply_three(convs: list[Conv], x: jax.Array) -> jax.Array:
    """The sum of three convolutions of the same data."""
    first, *rest = (conv(x) for conv in convs)
    return sum(rest, start=first)


def make(size: tuple[int, ...], dtype: str, config: Config) -> tuple[Any, Any, jax.Array]:
    """Block, variables and data: of ones for the two-channel block, else random."""
    rng = np.random.default_rng(config.seed)
    features = size[-1]
    block = ResidualConv(
        features,
        branches=(repjax.blocks.KxK(config.kernel_size), *ResidualConv.branches[1:]),
        param_dtype=jnp.dtype(dtype),
        kernel_init=jax.nn.initializers.ones if features == 2 else jax.nn.initializers.he_normal(),
        bias_init=jax.nn.initializers.ones if features == 2 else jax.nn.initializers.normal(),
    )
    x = jnp.asarray(np.ones(size) if features == 2 else rng.normal(size=size), dtype)
    return block, block.init(jax.random.key(config.seed), x), x


def compare(size_name: str, dtype: str, config: Config) -> list[dict[str, Any]]:
    """One row per compile option and form."""
    size = tuple(int(number) for number in size_name.split("x"))
    block, variables, x = make(size, dtype, config)
    forms: dict[str, tuple[Any, Any]] = {
        "native": (block.apply, variables),
        "three KxK": (apply_three, three_kxk(variables)),
        "fused": (block.deploy().apply, repjax.fuse_params(variables)),
    }
    checks = {form: repjax.verify(*forms["native"], *forms[form], x[:1]) for form in FORMS[1:]}
    rows = []
    for options in timing.option_names():
        programs = [timing.compile_program(form, options, *forms[form], x) for form in FORMS]
        times = timing.alternate(programs, repeats=config.repeats, seconds=config.seconds)
        native = float(np.median(times[0]))
        for program, found in zip(programs, times, strict=True):
            low, middle, high = timing.quartiles(found)
            check = checks.get(program.name, checks["fused"])
            rows.append(
                {
                    "size": size_name,
                    "dtype": dtype,
                    "options": options,
                    "form": program.name,
                    "equal": bool(check),
                    "error": check.error_a if program.name == "native" else check.error_b,
                    "convolutions": program.work.convolutions,
                    "optimised_convolutions": program.convolution_calls,
                    "megaflops": program.work.flops / 1e6,
                    "megabytes": program.work.bytes / 1e6,
                    "temporary_megabytes": program.temporary_bytes / 1e6,
                    "compile_seconds": program.compile_seconds,
                    "milliseconds": middle,
                    "quartiles": [low, high],
                    "rounds": len(found),
                    "times_native": float(np.median(found)) / native,
                }
            )
    return rows


def table(rows: list[dict[str, Any]], environment: dict[str, str]) -> Table:
    """All rows as one table for people."""
    title = "y = conv3x3(x) + conv1x1(x) + x,  " + ",  ".join(
        f"{key} {value}" for key, value in environment.items()
    )
    view = Table(title=title, title_justify="left")
    heads: tuple[str, ...] = (
        "size",
        "dtype",
        "compile options",
        "form",
        "equal",
        "error",
        "convs",
        "optimized",
    )
    heads += (
        "MFLOP",
        "MB moved",
        "MB temporary",
        "compile s",
        "median ms",
        "quartiles",
        "x native",
    )
    for number, head in enumerate(heads):
        view.add_column(head, justify="left" if number < 4 else "right", no_wrap=number < 4)
    previous = None
    for row in rows:
        key = (row["size"], row["dtype"], row["options"])
        if previous not in (None, key):
            view.add_section()
        shown = key if previous != key else ("", "", "")
        previous = key
        low, high = row["quartiles"]
        view.add_row(
            *shown,
            row["form"],
            "yes" if row["equal"] else "[red]NO[/red]",
            f"{row['error']:.1e}",
            str(row["convolutions"]),
            str(row["optimised_convolutions"]),
            f"{row['megaflops']:.3g}",
            f"{row['megabytes']:.3g}",
            f"{row['temporary_megabytes']:.3g}",
            f"{row['compile_seconds']:.2f}",
            f"{row['milliseconds']:.3f}",
            f"{low:.3f}-{high:.3f}",
            f"{row['times_native']:.2f}",
        )
    return view


def draw(rows: list[dict[str, Any]], environment: dict[str, str]) -> Figure:
    """Run times as bars: a panel per size, a group per type and compile option."""
    sizes = list(dict.fromkeys(row["size"] for row in rows))
    figure = Figure(figsize=(4.2 * len(sizes) + 0.6, 4.6), layout="constrained")
    panels = figure.subplots(1, len(sizes), squeeze=False)[0]
    for panel, size in zip(panels, sizes, strict=True):
        groups = list(dict.fromkeys((r["dtype"], r["options"]) for r in rows if r["size"] == size))
        for offset, form in enumerate(FORMS):
            found = [r for r in rows if r["size"] == size and r["form"] == form]
            places = np.arange(len(found)) + (offset - 1) * 0.27
            heights = [r["milliseconds"] for r in found]
            spread = [
                [max(r["milliseconds"] - r["quartiles"][0], 0) for r in found],
                [max(r["quartiles"][1] - r["milliseconds"], 0) for r in found],
            ]
            panel.bar(places, heights, 0.25, yerr=spread, label=form, capsize=2)
        labels = [f"{dtype}\n{options}" for dtype, options in groups]
        panel.set_xticks(np.arange(len(groups)), labels, fontsize=7)
        panel.set_title(size)
        panel.set_ylabel("ms per call (median, quartiles)")
    panels[0].legend()
    figure.suptitle(f"{environment['device']}, jax {environment['jax']}", fontsize=10)
    return figure


def main(config: Config) -> list[dict[str, Any]]:
    """Run the comparison, print the table, write JSON and figure."""
    console = Console(width=max(Console().width, 178))
    environment = describe()
    rows: list[dict[str, Any]] = []
    pairs = [(size, dtype) for size in config.sizes for dtype in config.dtypes]
    with console.status("comparing") as status:
        for size, dtype in pairs:
            status.update(f"comparing {size} in {dtype}")
            rows += compare(size, dtype, config)
    console.print(table(rows, environment))
    console.print(
        "equal: every element within 16 unit roundoffs of its magnitude, see repjax.verify; "
        "error: largest, against float64.\n"
        "convs: convolutions in the program; optimized: convolution calls left by the compiler."
    )
    config.output.mkdir(parents=True, exist_ok=True)
    report = {"environment": environment, "rows": rows}
    (config.output / "compare.json").write_text(json.dumps(report, indent=1))
    draw(rows, environment).savefig(config.output / "compare.png", dpi=150)
    console.print(f"written: {config.output}/compare.json, {config.output}/compare.png")
    return rows


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
