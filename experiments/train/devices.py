"""Processes, and the mesh of all their devices: batches are divided, everything else is copied."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from experiments.train.config import Run
from experiments.train.errors import RunError, one_line


def connect(config: Run) -> None:
    """Join the other processes, where there are any; before anything else is asked of JAX.

    Args:
        config: of the run; without `coordinator` this process is alone.

    Raises:
        RunError: the others do not come, or the settings do not fit together.
    """
    if config.coordinator is None:
        if config.processes is not None or config.process is not None:
            raise RunError("--processes and --process need --coordinator HOST:PORT")
        return
    address = None if config.coordinator == "auto" else config.coordinator
    if address is not None and (config.processes is None or config.process is None):
        raise RunError("--coordinator HOST:PORT needs --processes and --process")
    try:
        jax.distributed.initialize(address, config.processes, config.process)
    except (RuntimeError, ValueError) as error:
        raise RunError(f"--coordinator {config.coordinator}: {one_line(error)}") from error


@dataclasses.dataclass(frozen=True)
class Devices:
    """The devices that take part.

    Args:
        mesh: all of them, one axis.
    """

    mesh: Mesh

    @property
    def main(self) -> bool:
        """Whether this process writes and prints."""
        return jax.process_index() == 0

    @property
    def copied(self) -> NamedSharding:
        """The same on every device."""
        return NamedSharding(self.mesh, PartitionSpec())  # type: ignore[no-untyped-call]

    @property
    def divided(self) -> NamedSharding:
        """The first axis over all devices."""
        return NamedSharding(self.mesh, PartitionSpec("batch"))  # type: ignore[no-untyped-call]

    def rows(self, batch_size: int) -> slice:
        """Which images of a batch this process reads.

        Args:
            batch_size: images per step.

        Raises:
            RunError: it cannot be divided evenly.
        """
        count = self.mesh.size
        if batch_size % count:
            raise RunError(f"--batch-size {batch_size}: no multiple of {count} devices")
        share = batch_size // jax.process_count()
        return slice(share * jax.process_index(), share * (jax.process_index() + 1))

    def divide(self, batch: tuple[Any, ...]) -> tuple[jax.Array, ...]:
        """This process's part of a batch, as a part of the whole."""
        make: Any = jax.make_array_from_process_local_data
        return tuple(make(self.divided, part) for part in batch)

    def copy(self, tree: Any) -> Any:
        """Arrays that every process has alike, on every device."""

        def one(leaf: Any) -> jax.Array:
            array = np.asarray(leaf)
            return jax.make_array_from_callback(array.shape, self.copied, lambda at: array[at])

        return jax.tree.map(one, tree)

    def fetch(self, tree: Any) -> Any:
        """The arrays of a tree that is the same on every device, as NumPy has them."""
        return jax.tree.map(lambda leaf: np.asarray(leaf.addressable_data(0)), tree)


def find(config: Run) -> Devices:
    """The mesh that the settings ask for.

    Args:
        config: of the run.

    Raises:
        RunError: there are fewer devices, or some processes would have none.
    """
    there = jax.devices()
    count = config.devices or len(there)
    if not 1 <= count <= len(there):
        raise RunError(f"--devices {config.devices}: there are {len(there)} of them")
    if jax.process_count() > 1 and count != len(there):
        raise RunError("--devices is for one process; several use all of their devices")
    return Devices(Mesh(np.asarray(there[:count]), ("batch",)))
