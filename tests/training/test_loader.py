"""Batches: every image once per pass, the same from any step on, shared by processes."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest

from experiments.train import loader
from experiments.train.data.arrays import ArrayImages
from experiments.train.data.images import ImageSet, whole
from experiments.train.errors import RunError


def numbered(count: int, **fields: Any) -> ImageSet:
    """Images that show their number."""
    pixels = np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 1), np.uint8)
    return whole(ArrayImages(pixels, **fields), np.arange(count))


def batches(**options: Any) -> list[tuple[Any, ...]]:
    settings = {"batch_size": 6, "epochs": 3, "seed": 5} | options
    return list(loader.training_batches(numbered(20, shift=2, flip=True), **settings))


def test_every_pass_has_an_order_of_its_own() -> None:
    found = batches()
    assert len(found) == 9
    passes = [np.concatenate([labels for _, labels in found[i : i + 3]]) for i in (0, 3, 6)]
    assert all(len(set(order)) == 18 for order in passes)
    assert len({tuple(order) for order in passes}) == 3
    assert all(images.max((1, 2, 3)).tolist() == labels.tolist() for images, labels in found)


def test_the_same_from_any_step_on_and_with_any_threads() -> None:
    found = batches()
    for start in (1, 3, 7):
        later = batches(start=start, threads=3)
        assert len(later) == 9 - start
        for one, two in zip(found[start:], later, strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    other = batches(seed=6)
    assert any(not np.array_equal(one[1], two[1]) for one, two in zip(found, other, strict=True))


def test_processes_share_a_batch() -> None:
    parts = [batches(rows=slice(0, 2)), batches(rows=slice(2, 6))]
    for one, *shared in zip(batches(), *parts, strict=True):
        for whole_array, *pieces in zip(one, *shared, strict=True):
            assert np.array_equal(whole_array, np.concatenate(pieces))


def test_evaluation_has_every_image_once() -> None:
    found = list(loader.evaluation_batches(numbered(20), batch_size=6))
    assert [len(labels) for _, labels, _ in found] == [6, 6, 6, 6]
    weights = np.concatenate([weights for *_, weights in found])
    labels = np.concatenate([labels for _, labels, _ in found])
    assert labels[weights == 1].tolist() == list(range(20))
    assert weights.sum() == 20
    second = list(loader.evaluation_batches(numbered(20), batch_size=6, rows=slice(3, 6)))
    assert all(np.array_equal(a[1][3:], b[1]) for a, b in zip(found, second, strict=True))


def test_less_than_one_batch_is_refused() -> None:
    assert loader.steps_per_epoch(numbered(20), 6) == 3
    with pytest.raises(RunError, match="--batch-size 21: there are 20 images"):
        loader.steps_per_epoch(numbered(20), 21)


def test_reading_stops_with_its_reader() -> None:
    endless = loader.training_batches(numbered(20), batch_size=6, epochs=10**9, seed=0)
    assert len(list(islice(endless, 3))) == 3
