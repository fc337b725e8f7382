"""Random variables for a model: NumPy draws them, so that nothing has to be compiled."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np


def random_variables(shapes: Any, seed: int = 0) -> Any:
    """Variables of those shapes: weights that keep magnitudes, statistics that are not trivial.

    Args:
        shapes: a tree as `jax.eval_shape(model.init, ...)` gives it.
        seed: of the draw.
    """
    random = np.random.default_rng(seed)

    def draw(path: Any, leaf: Any) -> jax.Array:
        name = path[-1].key
        values = random.normal(size=leaf.shape)
        if name == "kernel":
            values /= np.sqrt(max(1, np.prod(leaf.shape[:-1])))
        elif name == "var":
            values = random.uniform(0.5, 1.5, leaf.shape)
        elif name == "scale":
            values = random.uniform(0.5, 1.5, leaf.shape) * random.choice([-1, 1], leaf.shape)
        else:
            values *= 0.3
        return jax.device_put(values.astype(leaf.dtype))

    return jax.tree_util.tree_map_with_path(draw, shapes)
