"""Variables as the state dict that PyTorch would have, by the tables of names."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from repjax.torch.arrays import oihw
from repjax.torch.fit import flat
from repjax.torch.names import Names, names_of
from tests.models.values import random_variables


def shapes_of(model: Any, size: int = 64) -> Any:
    """Shapes of a network's variables."""
    x = jax.ShapeDtypeStruct((1, size, size, model.in_channels), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), x)


def variables_of(model: Any) -> dict[str, Any]:
    """Random variables of a network."""
    variables: dict[str, Any] = random_variables(shapes_of(model))
    return variables


def state_of(model: Any, variables: Any, naming: str = "original") -> dict[str, np.ndarray]:
    """Variables of a model, in either form, as a state dict; no two arrays share a name."""
    table = names_of(type(model))[naming]
    names = table if isinstance(table, Names) else table(model)
    state: dict[str, np.ndarray] = {}
    for path, leaf in flat(variables).items():
        key = names.key(path[1:])
        assert key is not None, path
        assert key not in state, f"{key} twice"
        array = np.asarray(leaf)
        state[key] = oihw(array) if path[-1] == "kernel" else array
    return state
