"""Train a small RepVGG network on handwritten digits, fuse it, and compare the outputs.

python -m experiments.quickstart --help
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
import time
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import repjax
from experiments import timing
from experiments._machine import describe
from experiments._quickstart_figure import draw, kernels_of_a_block
from experiments.digits import Arrays, batches, digits
from repjax.blocks import RepVGGBlock


@dataclasses.dataclass(frozen=True)
class Config:
    """The quick start's settings; the defaults take about a minute on two CPU cores."""

    widths: tuple[int, ...] = (32, 64, 128)
    """Channels per stage; every stage but the first halves the resolution."""
    depth: int = 2
    """RepVGG blocks per stage."""
    epochs: int = 12
    """Passes over the 1,437 training images."""
    batch_size: int = 64
    """Images per step."""
    learning_rate: float = 3e-3
    """Peak of the one-cycle schedule (AdamW)."""
    weight_decay: float = 1e-2
    """Of AdamW, on kernels."""
    required_accuracy: float = 0.97
    """Test accuracy below which the script exits non-zero."""
    repeats: int = 100
    """Rounds of timing at most."""
    timing_batch: int = 64
    """Images per call when timed."""
    seed: int = 0
    """Of initialization, split and shuffling."""
    output: Path = Path("runs/quickstart")
    """Folder for quickstart.json and quickstart.png."""


class Network(nn.Module):
    """RepVGG blocks, a spatial mean, a linear head.

    Args:
        widths: channels per stage.
        depth: blocks per stage.
        deployed: be made of single convolutions.
    """

    widths: tuple[int, ...]
    depth: int
    deployed: bool = False

    def deploy(self) -> Network:
        """The deploy twin."""
        return self.clone(deployed=True)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Images (batch, 8, 8, 1) to logits (batch, 10)."""
        for stage, width in enumerate(self.widths):
            for number in range(self.depth):
                strides = 2 if stage > 0 and number == 0 else 1
                name = f"stage{stage}_block{number}"
                x = RepVGGBlock(width, strides=strides, deployed=self.deployed, name=name)(x, train)
        return nn.Dense(10, name="head")(x.mean((-3, -2)))


def train(network: Network, data: Arrays, config: Config, progress: Progress) -> Any:
    """Variables after training, `params` and `batch_stats`."""
    variables = jax.jit(network.init)(jax.random.key(config.seed), data[0][:1])
    steps = config.epochs * len(data[0]) // config.batch_size
    schedule = optax.cosine_onecycle_schedule(steps + 1, config.learning_rate)
    decay = functools.partial(jax.tree.map, lambda leaf: leaf.ndim > 1)
    optimizer = optax.adamw(schedule, weight_decay=config.weight_decay, mask=decay)
    opt_state = optimizer.init(variables["params"])

    @jax.jit
    def step(variables: Any, opt_state: Any, x: jax.Array, y: jax.Array) -> Any:
        def loss_fn(params: Any) -> Any:
            logits, updates = network.apply(
                {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
            )
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
            return loss, updates

        (loss, updates), grads = jax.value_and_grad(loss_fn, has_aux=True)(variables["params"])
        change, opt_state = optimizer.update(grads, opt_state, variables["params"])
        params = optax.apply_updates(variables["params"], change)
        return {"params": params, **updates}, opt_state, loss

    task = progress.add_task("training", total=steps, loss=float("nan"))
    shuffled = batches(data, epochs=config.epochs, batch_size=config.batch_size, seed=config.seed)
    for x, y in shuffled:
        variables, opt_state, loss = step(variables, opt_state, x, y)
        progress.update(task, advance=1, loss=float(loss))
    return variables


def measure(
    network: Network, variables: Any, deployed: Any, x: np.ndarray[Any, Any], config: Config
) -> list[dict[str, Any]]:
    """Inference times before and after, side by side, per compile option."""
    rows = []
    for options in timing.option_names():
        programs = [
            timing.compile_program("multi-branch", options, network.apply, variables, x),
            timing.compile_program("fused", options, network.deploy().apply, deployed, x),
        ]
        times = timing.alternate(programs, repeats=config.repeats, seconds=5.0)
        native = float(np.median(times[0]))
        for program, found in zip(programs, times, strict=True):
            low, middle, high = timing.quartiles(found)
            rows.append(
                {
                    "options": options,
                    "form": program.name,
                    "milliseconds": middle,
                    "quartiles": [low, high],
                    "compile_seconds": program.compile_seconds,
                    "speedup": native / float(np.median(found)),
                }
            )
    return rows


def main(config: Config) -> int:
    """Train, fuse, compare, time, draw; 1 if the network misses the required accuracy."""
    console, begin = Console(), time.perf_counter()
    environment = describe()
    (x, y), (x_test, y_test) = digits(config.seed)
    data, x_test = (x / 16, y), x_test / 16
    network = Network(config.widths, config.depth)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    last = TextColumn("loss {task.fields[loss]:.4f}")
    with Progress(*columns, TimeElapsedColumn(), last, console=console) as progress:
        variables = train(network, data, config, progress)
    deployed = repjax.fuse_params(variables)

    with jax.default_matmul_precision("highest"):
        logits = jax.jit(network.apply)(variables, x_test)
        fused_logits = jax.jit(network.deploy().apply)(deployed, x_test)
    accuracy = float((logits.argmax(-1) == y_test).mean())
    fused_accuracy = float((fused_logits.argmax(-1) == y_test).mean())
    same = int((logits.argmax(-1) == fused_logits.argmax(-1)).sum())
    moved = float(jnp.abs(logits - fused_logits).max())
    check = repjax.verify(network.apply, variables, network.deploy().apply, deployed, x_test[:8])
    forms = [(network, variables), (network.deploy(), deployed)]
    counts = [
        repjax.count_operations(form.apply, tree, x_test)["conv_general_dilated"]
        for form, tree in forms
    ]
    sizes = [sum(leaf.size for leaf in jax.tree.leaves(tree)) for _, tree in forms]
    rows = measure(network, variables, deployed, x_test[: config.timing_batch], config)

    view = Table("", "multi-branch", "fused", title="before and after", title_justify="left")
    view.add_row("test accuracy", f"{accuracy:.2%}", f"{fused_accuracy:.2%}")
    view.add_row("predictions that agree", "", f"{same} of {len(y_test)}")
    view.add_row("largest logit", f"{float(jnp.abs(logits).max()):.2f}", "")
    view.add_row("largest move of a logit", "", f"{moved:.1e}")
    view.add_row("convolutions", *map(str, counts))
    view.add_row("parameters and statistics", *[f"{size:,}" for size in sizes])
    for options in timing.option_names():
        native, fused = (row for row in rows if row["options"] == options)
        view.add_row(
            f"inference, ms ({options})",
            f"{native['milliseconds']:.2f}",
            f"{fused['milliseconds']:.2f}  ({fused['speedup']:.2f} x the speed)",
        )
    console.print(view)
    console.print(f"repjax.verify: {check}")

    named = ", ".join(f"{key} {value}" for key, value in environment.items())
    title = f"batch {config.timing_batch} of 8x8, float32, {named}"
    config.output.mkdir(parents=True, exist_ok=True)
    kernels = kernels_of_a_block(variables, deployed, "stage0_block1")
    draw(kernels, rows, title).savefig(config.output / "quickstart.png", dpi=150)
    report = {"environment": environment, "accuracy": accuracy, "agree": same, "moved": moved}
    report |= {"convolutions": counts, "sizes": sizes, "rows": rows}
    (config.output / "quickstart.json").write_text(json.dumps(report, indent=1))
    console.print(f"on {named}")
    console.print(f"written: {config.output}/quickstart.png and quickstart.json")
    console.print(f"{time.perf_counter() - begin:.0f} seconds in all")
    if accuracy < config.required_accuracy or same < len(y_test) or not check:
        console.print(f"[red]failed[/red]: accuracy {accuracy:.2%}, {same} predictions agree")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config, description=__doc__)))
