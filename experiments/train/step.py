"""One training step and one step of evaluation, as jitted functions of the state."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import repjax
from experiments.train import networks
from experiments.train.config import Optimizer
from experiments.train.forms import Form, Tree

State = dict[str, Any]
"""`tree`, `optimizer`, `step`, and `average` where there is one."""


@dataclasses.dataclass(frozen=True)
class Normalize:
    """Bytes to numbers: (value / 255 - mean) / std, per channel.

    Args:
        mean: of the training images.
        std: of the training images.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: jax.Array) -> jax.Array:
        """Pixels (..., channels), uint8, as float32."""
        shares = images.astype(jnp.float32) / 255
        normal: jax.Array = (shares - jnp.asarray(self.mean)) / jnp.asarray(self.std)
        return normal


def initial_state(config: Optimizer, form: Form, optimizer: optax.GradientTransformation) -> State:
    """The state before the first step.

    Args:
        config: of the optimizer.
        form: how the network is trained.
        optimizer: of its parameters.
    """
    moments: Any = optimizer.init(form.tree["params"])
    state: State = {
        "tree": form.tree,
        "optimizer": moments,
        "step": jnp.zeros((), jnp.int32),
    }
    return state | ({"average": form.tree} if config.average else {})


def evaluated(state: State) -> Tree:
    """The variables that are evaluated and fused: the moving average where there is one."""
    tree: Tree = state["average" if "average" in state else "tree"]
    return tree


def training_step(
    config: Optimizer,
    form: Form,
    optimizer: optax.GradientTransformation,
    normalize: Normalize,
    seed: int,
) -> Callable[[State, jax.Array, jax.Array], tuple[State, dict[str, jax.Array]]]:
    """A function of the state, images and labels, to be jitted: the next state, and metrics.

    Args:
        config: of the optimizer.
        form: how the network is trained.
        optimizer: of its parameters.
        normalize: of the images.
        seed: of what is dropped.
    """

    def loss_of(params: Any, state: State, images: jax.Array, labels: jax.Array) -> Any:
        tree = {**state["tree"], "params": params}
        variables = form.variables(tree)
        moving = [name for name in variables if name not in ("params", "fixed")]
        key = jax.random.fold_in(jax.random.key(seed), state["step"])
        logits, updates = form.module.apply(
            variables,
            normalize(images),
            **networks.mode(form.module, True),
            mutable=moving,
            rngs={"dropout": key},
        )
        logits = _at_least_float32(logits)
        targets = optax.smooth_labels(
            jax.nn.one_hot(labels, logits.shape[-1]), config.label_smoothing
        )
        loss = optax.softmax_cross_entropy(logits, targets).mean()
        if config.equivalent_decay:
            loss += 0.5 * config.equivalent_decay * kernel_squares(tree)
        right = (logits.argmax(-1) == labels).mean()
        return loss, (updates, right)

    def step(
        state: State, images: jax.Array, labels: jax.Array
    ) -> tuple[State, dict[str, jax.Array]]:
        params = state["tree"]["params"]
        gradient = jax.value_and_grad(loss_of, has_aux=True)
        (loss, (updates, right)), gradients = gradient(params, state, images, labels)
        change, moments = optimizer.update(gradients, state["optimizer"], params)
        tree = {**state["tree"], **updates, "params": optax.apply_updates(params, change)}
        new: State = {"tree": tree, "optimizer": moments, "step": state["step"] + 1}
        if config.average:
            new["average"] = averaged(config.average, state["average"], tree, state["step"])
        return new, {"loss": loss, "accuracy": right}

    return step


def averaged(decay: float, average: Tree, tree: Tree, step: jax.Array) -> Tree:
    """The moving average one step on; the first steps count for less than they would.

    Args:
        decay: of the average.
        average: before.
        tree: of this step.
        step: its number, from 0.
    """
    share = 1 - jnp.minimum(decay, (1 + step) / (10 + step))
    result: Tree = optax.incremental_update(tree, average, share)
    return result


def kernel_squares(tree: Tree) -> jax.Array:
    """The sum of squares of all fused convolution kernels.

    Args:
        tree: variables, with branches or without.
    """
    leaves = jax.tree_util.tree_flatten_with_path(repjax.fuse_params(tree)["params"])[0]
    kernels = [leaf for path, leaf in leaves if path[-1].key == "kernel" and leaf.ndim > 2]
    total: jax.Array = jnp.asarray(
        sum((kernel.astype(jnp.float32) ** 2).sum() for kernel in kernels)
    )
    return total


def evaluation_step(
    apply: Callable[..., jax.Array], normalize: Normalize
) -> Callable[..., dict[str, jax.Array]]:
    """A function of variables, images, labels and weights, to be jitted: weighted sums.

    Args:
        apply: logits of variables and images.
        normalize: of the images.
    """

    def step(
        tree: Any, images: jax.Array, labels: jax.Array, weights: jax.Array
    ) -> dict[str, jax.Array]:
        logits = _at_least_float32(apply(tree, normalize(images)))
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        right = logits.argmax(-1) == labels
        return {
            "loss": (losses * weights).sum(),
            "accuracy": (right * weights).sum(),
            "images": weights.sum(),
        }

    return step


def _at_least_float32(logits: jax.Array) -> jax.Array:
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
