"""Branches for a network that knows nothing of them: trained through the fold, the same in the end.

A residual network of Flax's own modules learns handwritten digits from the same start twice: as
it is, and with branches beside its 3x3 kernels (`repjax.add_branches`). The branches live in the
tree alone: each step runs the plain network on `repjax.fuse_params(tree)`, and so does the end.

python -m experiments.over_parameterize --help
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # the options of the step log a line each

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Table

import repjax
from experiments._machine import describe
from experiments.digits import Arrays, batches, digits
from repjax.branches import AveragePool, Branch, Identity, KxK, Pointwise, Scale, Sequence


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings; the defaults take about two minutes on two CPU cores."""

    widths: tuple[int, ...] = (16, 32)
    """Channels per stage of the network."""
    learning_rates: tuple[float, ...] = (0.03, 0.1)
    """Of SGD; branches enlarge the steps of the kernel, so that one rate compares little."""
    seeds: int = 3
    """Runs of each, other initial values and other batches."""
    epochs: int = 4
    """Passes over the 1,437 training images."""
    batch_size: int = 32
    """Images per step."""


class ResNet(nn.Module):
    """A residual network as anybody would write it, without a word about branches.

    Args:
        widths: channels per stage.
    """

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Images (batch, 8, 8, 1) to logits (batch, 10)."""
        x = nn.Conv(self.widths[0], (3, 3), use_bias=False)(x)
        for stage, width in enumerate(self.widths):
            strides = 2 if stage else 1
            y = nn.Conv(width, (3, 3), strides, use_bias=False)(x)
            y = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(y))
            y = nn.Conv(width, (3, 3), use_bias=False)(y)
            y = nn.BatchNorm(use_running_average=not train, momentum=0.9)(y)
            if x.shape != y.shape:
                x = nn.Conv(width, (1, 1), strides, use_bias=False)(x)
            x = nn.relu(x + y)
        return nn.Dense(10)(x.mean((1, 2)))


def beside(path: str, kernel: Any) -> tuple[Branch, ...]:
    """What stands beside a 3x3 kernel; others stay alone."""
    pooled = Scale(Sequence(Pointwise(), AveragePool(3)))
    added = (Scale(KxK(3)), Scale(Pointwise()), pooled, Identity(optional=True))
    return added if kernel.shape[:2] == (3, 3) else ()


Fold = Callable[[Any], Any]
MOMENTUM = optax.trace(0.9, nesterov=True)


def branched(variables: Any, key: jax.Array) -> Any:
    """The network's variables with branches, which compute the same."""
    return repjax.add_branches(variables, beside, key)


def make_step(model: ResNet, fold: Fold) -> Any:
    """One step of SGD with momentum: the plain network, on the fold of what is trained."""

    def step(tree: Any, state: Any, rate: float, x: jax.Array, y: jax.Array) -> Any:
        def loss_fn(params: Any) -> Any:
            plain = fold({**tree, "params": params})
            logits, updates = model.apply(plain, x, train=True, mutable=["batch_stats"])
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), updates

        grads, updates = jax.grad(loss_fn, has_aux=True)(tree["params"])
        change, state = MOMENTUM.update(grads, state)
        params = jax.tree.map(lambda leaf, one: leaf - rate * one, tree["params"], change)
        return {**tree, "params": params, **updates}, state

    return jax.jit(step, compiler_options=repjax.compiler_options() or None)


@dataclasses.dataclass
class Form:
    """A way to train, and what came of it.

    Args:
        name: in the table.
        start: the tree that is trained, made of the network's variables and a key.
        fold: to the variables of the network.
        step: see `make_step`.
        accuracy: on the test images, by learning rate, one per seed.
        seconds: of every run, without compiling.
    """

    name: str
    start: Callable[[Any, jax.Array], Any]
    fold: Fold
    step: Any
    accuracy: dict[float, list[float]] = dataclasses.field(default_factory=dict)
    seconds: list[float] = dataclasses.field(default_factory=list)

    def best(self) -> tuple[float, float, float]:
        """The best mean accuracy, its standard deviation over the seeds, and its rate."""
        means = {rate: float(np.mean(found)) for rate, found in self.accuracy.items()}
        rate = max(means, key=lambda rate: means[rate])
        return means[rate], float(np.std(self.accuracy[rate])), rate


def run(form: Form, variables: Any, rate: float, seed: int, data: Arrays, config: Config) -> Any:
    """Train from the network's first variables; its variables in the end."""
    tree = form.start(variables, jax.random.key(seed))
    state = MOMENTUM.init(tree["params"])
    begin = None
    for x, y in batches(data, epochs=config.epochs, batch_size=config.batch_size, seed=seed):
        tree, state = form.step(tree, state, rate, x, y)
        if begin is None:
            jax.tree.leaves(tree)[0].block_until_ready()
            begin = time.perf_counter()
    jax.tree.leaves(tree)[0].block_until_ready()
    form.seconds.append(time.perf_counter() - (begin or 0.0))
    return form.fold(tree)


def verdict(plain: Form, branched: Form, seeds: int) -> str:
    """Better or not, at the best rate of each."""
    (one, spread, rate), (two, other, other_rate) = plain.best(), branched.best()
    words = "no difference beyond the spread of the seeds"
    if seeds == 1:
        words = "one seed tells nothing"
    elif abs(two - one) > max(spread, other):
        words = "branches helped" if two > one else "branches did harm"
    return (
        f"each at its best rate for these test images: plain {one:.2%} ({rate}), "
        f"with branches {two:.2%} ({other_rate}): {words}"
    )


def main(config: Config) -> int:
    """Train both forms, compare; 1 if the end is not the network of the beginning."""
    console, model = Console(), ResNet(config.widths)
    data, (x_test, y_test) = digits(seed=0)
    init, infer = jax.jit(model.init), jax.jit(model.apply)
    variables = init(jax.random.key(0), x_test[:1])
    wide = branched(variables, jax.random.key(1))
    moved = jnp.abs(infer(variables, x_test) - infer(repjax.fuse_params(wide), x_test)).max()
    sizes = [sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (variables, wide)]
    console.print(f"a node: {next(iter(wide['params']['Conv_1']))}")
    console.print(f"{sizes[0]:,} numbers, with branches {sizes[1]:,}; logits move {moved:.0e}")

    ways: list[tuple[str, Any, Fold]] = [
        ("plain", lambda variables, key: variables, lambda tree: tree),
        ("with branches", branched, repjax.fuse_params),
    ]
    forms = [Form(name, start, fold, make_step(model, fold)) for name, start, fold in ways]
    shapes = jax.tree.map(jnp.shape, variables)
    runs = [(rate, seed) for rate in config.learning_rates for seed in range(config.seeds)]
    for rate, seed in track(runs, "training", console=console):
        first = init(jax.random.key(seed), x_test[:1])
        for form in forms:
            end = run(form, first, rate, seed, data, config)
            if jax.tree.map(jnp.shape, end) != shapes:
                console.print(f"[red]failed[/red]: {form.name} ends in another network")
                return 1
            correct = infer(end, x_test).argmax(-1) == y_test
            form.accuracy.setdefault(rate, []).append(float(correct.mean()))

    rates = [f"rate {rate}" for rate in config.learning_rates]
    table = Table("", *rates, "convolutions of a step", "seconds per run")
    for form, tree in zip(forms, (variables, wide), strict=True):
        cells = [f"{np.mean(a):.2%} ± {np.std(a):.2%}" for a in form.accuracy.values()]
        arguments = (tree, MOMENTUM.init(tree["params"]), 0.1, x_test[:2], y_test[:2])
        count = repjax.count_operations(form.step, *arguments)["conv_general_dilated"]
        table.add_row(form.name, *cells, str(count), f"{np.median(form.seconds):.1f}")
    console.print(table)
    console.print(f"test accuracy, mean and standard deviation of {config.seeds} seeds; both end")
    console.print(f"as the same network of {sizes[0]:,} numbers")
    console.print(verdict(forms[0], forms[1], config.seeds))
    console.print("on " + ", ".join(f"{key} {value}" for key, value in describe().items()))
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config, description=__doc__)))
