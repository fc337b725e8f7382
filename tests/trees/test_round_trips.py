"""What a tree goes through in its life does not change what it fuses to."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import repjax
from tests.blocks.cases import same

orbax = pytest.importorskip("orbax.checkpoint")
safetensors = pytest.importorskip("safetensors.numpy")


def through_jit(variables: Any, folder: pathlib.Path) -> Any:
    return jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf * 1, tree))(variables)


def through_orbax(variables: Any, folder: pathlib.Path) -> Any:
    with orbax.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "orbax", variables)
        checkpointer.wait_until_finished()
        return checkpointer.restore(folder / "orbax", jax.tree.map(jnp.zeros_like, variables))


def through_orbax_without_a_target(variables: Any, folder: pathlib.Path) -> Any:
    """As from a checkpoint of which nothing else is known."""
    with orbax.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(folder / "orbax", variables)
        return checkpointer.restore(folder / "orbax")


def through_orbax_with_a_file_per_array(variables: Any, folder: pathlib.Path) -> Any:
    """Files are named by whole paths, and a name has 255 characters at most."""
    with orbax.Checkpointer(orbax.PyTreeCheckpointHandler(use_ocdbt=False)) as checkpointer:
        checkpointer.save(folder / "orbax", variables)
        assert any("y=" in file.name for file in (folder / "orbax").rglob("*"))
        return checkpointer.restore(folder / "orbax")


def through_safetensors(variables: Any, folder: pathlib.Path) -> Any:
    flat = flax.traverse_util.flatten_dict(variables, sep="/")
    arrays = {name: np.asarray(leaf) for name, leaf in flat.items()}
    safetensors.save_file(arrays, folder / "weights.safetensors")
    read = safetensors.load_file(folder / "weights.safetensors")
    return flax.traverse_util.unflatten_dict(read, sep="/")


def through_flax_bytes(variables: Any, folder: pathlib.Path) -> Any:
    return flax.serialization.msgpack_restore(flax.serialization.to_bytes(variables))


TRIPS = [
    through_jit,
    through_orbax,
    through_orbax_without_a_target,
    through_orbax_with_a_file_per_array,
    through_safetensors,
    through_flax_bytes,
]


@pytest.mark.filterwarnings("ignore:.*[Ss]harding.*:UserWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("trip", TRIPS, ids=lambda trip: trip.__name__)
def test_fuses_to_the_same_after(
    trip: Callable[..., Any], variables: Any, tmp_path: pathlib.Path
) -> None:
    wanted = repjax.fuse_params(variables)
    found = repjax.fuse_params(trip(variables, tmp_path))
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), found, wanted))


def test_fuses_after_an_optimizer_step(variables: Any) -> None:
    """Optimizer states hold trees of the same names, too: they must not get in the way."""
    optimizer = optax.chain(optax.add_decayed_weights(1e-2), optax.adam(1e-2))

    @jax.jit
    def step(params: Any) -> Any:
        state = optimizer.init(params)
        updates, state = optimizer.update(jax.tree.map(jnp.ones_like, params), state, params)
        return optax.apply_updates(params, updates), state

    params, state = step(variables["params"])
    by_hand = jax.tree.map(lambda leaf: leaf - 1e-2 * jnp.sign(1 + 1e-2 * leaf), variables)
    fused = repjax.fuse_params({**variables, "params": params})
    wanted = repjax.fuse_params({**variables, "params": by_hand["params"]})
    assert same(fused, wanted, 1e-4)
    moments = state[1][0].mu
    assert jax.tree.structure(moments) == jax.tree.structure(variables["params"])
