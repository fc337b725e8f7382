"""Batches by Grain: shuffled, augmented, sharded by process, from any step on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grain
import numpy as np

from experiments.train.data import ImageSet
from experiments.train.data.images import DRAWS, Array
from experiments.train.errors import RunError

Batch = tuple[Array, ...]


def steps_per_epoch(images: ImageSet, batch_size: int) -> int:
    """Whole batches in one pass.

    Args:
        images: the set.
        batch_size: images per step.

    Raises:
        RunError: there is not one.
    """
    if len(images) < batch_size:
        raise RunError(f"--batch-size {batch_size}: there are {len(images)} images to train with")
    return len(images) // batch_size


def training_batches(
    images: ImageSet,
    *,
    batch_size: int,
    epochs: int,
    seed: int,
    start: int = 0,
    rows: slice = slice(None),
    threads: int = 1,
) -> Iterator[Batch]:
    """Images (n, height, width, channels) and labels (n,) of every step, from one on.

    A batch depends on the seed and the number of its step alone: not on where the iteration
    began, nor on how many processes share it.

    Args:
        images: the set.
        batch_size: images per step, of all processes together.
        epochs: passes; each has its own order, and leaves out what fills no batch.
        seed: of order and augmentation.
        start: the first step.
        rows: which images of each batch this process reads.
        threads: that read ahead.
    """

    def read(places: Array, random: np.random.Generator) -> Batch:
        draws = random.random((batch_size, DRAWS), np.float32)
        return images.read(places[rows], draws[rows])

    order = grain.MapDataset.range(len(images)).seed(seed).shuffle()
    batches = order.batch(batch_size, drop_remainder=True).repeat(epochs).random_map(read)
    return _ahead(batches[start:], threads)


def evaluation_batches(
    images: ImageSet, *, batch_size: int, rows: slice = slice(None), threads: int = 1
) -> Iterator[Batch]:
    """Images, labels and weights (n,) of all images in order; the last batch is filled up.

    Args:
        images: the set.
        batch_size: images per batch, of all processes together.
        rows: which images of each batch this process reads.
        threads: that read ahead.
    """

    def read(number: int) -> Batch:
        places = np.arange(number * batch_size, (number + 1) * batch_size)
        weights = (places < len(images)).astype(np.float32)
        places = np.minimum(places, len(images) - 1)[rows]
        return *images.read(places), weights[rows]

    return _ahead(grain.MapDataset.range(-(-len(images) // batch_size)).map(read), threads)


def _ahead(batches: Any, threads: int) -> Iterator[Batch]:
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    make: Callable[..., Any] = batches.to_iter_dataset
    found: Iterator[Batch] = iter(make(options))
    return found
