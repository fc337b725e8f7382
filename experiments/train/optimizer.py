"""The optax optimizer of a run: warm-up and cosine, decay on kernels, the form's gradients."""

from __future__ import annotations

from typing import Any

import jax
import optax

from experiments.train.config import Optimizer
from experiments.train.errors import RunError, one_line
from experiments.train.forms import Form, constants
from repjax import optim


def schedule(config: Optimizer, steps_per_epoch: int) -> optax.Schedule:
    """The learning rate by step.

    Args:
        config: of the optimizer.
        steps_per_epoch: batches in one pass.
    """
    steps = config.epochs * steps_per_epoch
    warmup = min(round(config.warmup * steps_per_epoch), steps - 1)
    return optax.warmup_cosine_decay_schedule(
        config.learning_rate / (warmup + 1), config.learning_rate, warmup, steps
    )


def make(config: Optimizer, form: Form, steps_per_epoch: int) -> optax.GradientTransformation:
    """The optimizer of the parameters.

    Args:
        config: of the optimizer.
        form: how the network is trained; gradient changes gradients, or Adam's updates.
        steps_per_epoch: batches in one pass.

    Raises:
        RunError: the branches of gradient are not affine in what is trained.
    """
    rate = optax.scale_by_learning_rate(schedule(config, steps_per_epoch))
    try:
        decay = _decay(config.weight_decay, form)
        if config.optimizer == "sgd":
            moved = [] if form.wide is None else [optim.branch_gradient(form.wide, constants)]
            trace = [optax.trace(config.momentum, config.nesterov)] if config.momentum else []
            return optax.chain(*moved, *decay, *trace, rate)
        moved = [] if form.wide is None else [optim.branch_update(form.wide, constants)]
    except ValueError as error:
        raise RunError(f"--form {form.name}: {one_line(error)}") from error
    return optax.chain(optax.scale_by_adam(), *moved, *decay, rate)


def _decay(rate: float, form: Form) -> list[optax.GradientTransformation]:
    """Decay of kernels; of those that stand for branches, of what the branches train."""
    if not rate:
        return []
    followed = () if form.wide is None else _modules_with_branches(form.wide["params"])

    def mask(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: path[-1].key == "kernel" and path[:-1] not in followed, params
        )

    decay = [optax.add_decayed_weights(rate, mask)]
    if form.wide is not None:
        decay.append(optim.branch_decay(rate, form.wide, constants))
    return decay


def _modules_with_branches(params: Any) -> set[tuple[Any, ...]]:
    paths = (path for path, _ in jax.tree_util.tree_flatten_with_path(params)[0])
    places = ((path, [str(entry.key).startswith("y=") for entry in path]) for path in paths)
    return {path[: found.index(True)] for path, found in places if True in found}
