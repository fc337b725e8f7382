"""Checkpoints by Orbax: written whole or not at all, the last and the best are kept."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from experiments.train.errors import RunError, one_line


class Checkpoints:
    """The checkpoints of one run, by the number of the step.

    Args:
        folder: where they lie, made if need be.

    Raises:
        RunError: it cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        logging.getLogger("absl").setLevel(logging.ERROR)
        best = BestN(get_metric_fn=_accuracy, n=1, keep_checkpoints_without_metrics=False)
        policy = AnyPreservationPolicy([LatestN(1), best])
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policy,
            best_fn=_accuracy,
            cleanup_tmp_directories=True,
            enable_async_checkpointing=False,
        )
        try:
            self.manager = ocp.CheckpointManager(folder.absolute(), options=options)
        except OSError as error:
            raise RunError(f"{folder}: {one_line(error)}") from error
        self.folder = folder

    @property
    def last(self) -> int | None:
        """The step of the last one, None where there is none."""
        step: int | None = self.manager.latest_step()
        return step

    @property
    def best(self) -> int | None:
        """The step of the one with the highest accuracy."""
        step: int | None = self.manager.best_step()
        return step

    def save(self, step: int, state: Any, accuracy: float | None) -> None:
        """Write one, unless it is there.

        Args:
            step: number of steps that were made.
            state: of the run.
            accuracy: on the images that are watched, where it is known.

        Raises:
            RunError: the disk is full, or does not take it.
        """
        if step in self.manager.all_steps():
            return
        metrics = None if accuracy is None else {"accuracy": accuracy}
        before = self.last
        try:
            self.manager.save(step, args=ocp.args.StandardSave(state), metrics=metrics, force=True)
            self.manager.wait_until_finished()
        except Exception as error:  # of the file system, as Orbax and TensorStore word it
            kept = "there is none before" if before is None else f"that of step {before} is kept"
            raise RunError(
                f"{self.folder}: cannot save the checkpoint of step {step}; {kept}: "
                f"{one_line(error)}"
            ) from error

    def restore(self, step: int, like: Any) -> Any:
        """The state of a step.

        Args:
            step: its number.
            like: a state of the same structure, shapes and shardings.

        Raises:
            RunError: the checkpoint is damaged, or of another network.
        """
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        try:
            return self.manager.restore(step, args=ocp.args.StandardRestore(target))
        except Exception as error:  # as Orbax words it
            raise RunError(
                f"{self.folder}: cannot read the checkpoint of step {step}: {one_line(error)}"
            ) from error

    def close(self) -> None:
        """Wait for what is being written."""
        self.manager.close()


def _accuracy(metrics: Any) -> float:
    return float(metrics["accuracy"]) if metrics else -1.0
