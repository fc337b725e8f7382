"""A small network and its variables, with statistics that are no zeros and ones."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import repjax

SIZES: dict[str, Any] = {"depths": (1, 1, 1, 1), "widths": (4, 6, 6, 8)}


def random_like(tree: Any) -> Any:
    """Values for shapes and types; variances are positive."""
    rng = np.random.default_rng(0)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.asarray(
            rng.uniform(0.5, 1.5, leaf.shape)
            if path[-1].key == "var"
            else rng.normal(size=leaf.shape) * 0.5,
            leaf.dtype,
        ),
        tree,
    )


@pytest.fixture(scope="package")
def network() -> tuple[Any, Any, jax.Array]:
    """A deployed RepVGG, its variables, and images."""
    model = repjax.models.create("repvgg_a0", num_classes=3, **SIZES)
    images = jnp.asarray(np.random.default_rng(1).normal(size=(2, 24, 16, 3)), jnp.float32)
    variables = random_like(jax.eval_shape(model.init, jax.random.key(0), images))
    return model.deploy(), repjax.fuse_params(variables), images
