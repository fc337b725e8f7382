"""Running statistics of batch norms, measured anew with the weights held."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from experiments.train import networks
from experiments.train.forms import Form, Tree


def recalibrated(
    form: Form, tree: Tree, batches: Iterator[tuple[jax.Array, ...]], options: Any
) -> Tree:
    """The tree with statistics that are the means of those of some batches.

    A running statistic moves to ``m * old + (1 - m) * batch``. Beginning once with zeros and
    once with ones tells m of every norm, whatever module it stands in.

    Args:
        form: how the network was trained.
        tree: its variables.
        batches: normalized images.
        options: of the compiler.
    """
    if "batch_stats" not in tree:
        return tree

    def moved(tree: Tree, images: jax.Array, old: float) -> Any:
        stats = jax.tree.map(lambda leaf: jnp.full_like(leaf, old), tree["batch_stats"])
        variables = {**form.variables(tree), "batch_stats": stats}
        return form.module.apply(
            variables,
            images,
            **networks.mode(form.module, True),
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(0)},
        )[1]["batch_stats"]

    def of_batch(tree: Tree, images: jax.Array) -> Any:
        zeros, ones = moved(tree, images, 0.0), moved(tree, images, 1.0)
        return jax.tree.map(lambda zero, one: zero / (1 - (one - zero)), zeros, ones)

    measure = jax.jit(of_batch, compiler_options=options)
    total, count = None, 0
    for (images,) in batches:
        found = measure(tree, images)
        total = found if total is None else jax.tree.map(jnp.add, total, found)
        count += 1
    return {**tree, "batch_stats": jax.tree.map(lambda leaf: leaf / count, total)}
