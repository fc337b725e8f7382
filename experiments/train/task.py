"""Everything that a run is made of, before its first step."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

import repjax
from experiments.train import data, devices, forms, loader, networks, optimizer
from experiments.train import step as steps
from experiments.train.config import Config


@dataclasses.dataclass(frozen=True)
class Task:
    """Everything that a run is made of, before its first step.

    Args:
        config: its settings.
        splits: images.
        there: devices.
        form: how the network is trained.
        optimizer: of its parameters.
        normalize: of the images.
        per_epoch: steps in one pass.
    """

    config: Config
    splits: data.Splits
    there: devices.Devices
    form: forms.Form
    optimizer: optax.GradientTransformation
    normalize: steps.Normalize
    per_epoch: int

    @property
    def total(self) -> int:
        """Steps of the whole run."""
        return self.per_epoch * self.config.optimizer.epochs

    def jit(self, function: Callable[..., Any], **options: Any) -> Any:
        """A jitted function whose results are the same on every device."""
        return jax.jit(
            function,
            out_shardings=self.there.copied,
            compiler_options=repjax.compiler_options() or None,
            **options,
        )

    def initial_state(self) -> steps.State:
        """The state before the first step, on the devices."""
        state = steps.initial_state(self.config.optimizer, self.form, self.optimizer)
        placed: steps.State = self.there.copy(state)
        return placed

    @functools.cached_property
    def step(self) -> Any:
        """The jitted training step, which takes the state's memory over."""
        function = steps.training_step(
            self.config.optimizer, self.form, self.optimizer, self.normalize, self.config.run.seed
        )
        return self.jit(function, donate_argnums=0)

    @functools.cached_property
    def evaluation(self) -> Any:
        """The jitted step of evaluation."""
        return self.jit(steps.evaluation_step(self.form.apply, self.normalize))

    def batches(self, start: int) -> Iterator[tuple[Any, ...]]:
        """Images and labels of this process, from a step on."""
        return loader.training_batches(
            self.splits.train,
            batch_size=self.config.optimizer.batch_size,
            epochs=self.config.optimizer.epochs,
            seed=self.config.run.seed,
            start=start,
            rows=self.there.rows(self.config.optimizer.batch_size),
            threads=self.config.data.threads,
        )

    def watch(self, tree: Any) -> dict[str, float]:
        """Loss and accuracy of variables on the watched images."""
        size = self.config.optimizer.batch_size
        sums: dict[str, Any] = {}
        for batch in loader.evaluation_batches(
            self.splits.watch,
            batch_size=size,
            rows=self.there.rows(size),
            threads=self.config.data.threads,
        ):
            found = self.evaluation(tree, *self.there.divide(batch))
            sums = {name: value + sums.get(name, 0) for name, value in found.items()}
        count = float(sums.pop("images"))
        return {f"watched_{name}": float(value) / count for name, value in sums.items()}


def make_task(config: Config) -> Task:
    """What a run is made of.

    Args:
        config: its settings.

    Raises:
        RunError: something in them is wrong.
    """
    there = devices.find(config.run)
    there.rows(config.optimizer.batch_size)
    splits = data.load(config.data, config.run.seed)
    per_epoch = loader.steps_per_epoch(splits.train, config.optimizer.batch_size)
    height, width, channels = splits.train.images.shape
    module = networks.create(config.network, len(splits.classes), channels)
    sample = jnp.zeros((1, height, width, channels), jnp.float32)
    form = forms.make(config.network, module, sample, config.run.seed)
    normalize = steps.Normalize(splits.mean, splits.std)
    chain = optimizer.make(config.optimizer, form, per_epoch)
    return Task(config, splits, there, form, chain, normalize, per_epoch)
