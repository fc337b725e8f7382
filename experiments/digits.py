"""The handwritten digits of scikit-learn, and shuffled batches of arrays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grain
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

Arrays = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


def digits(seed: int) -> tuple[Arrays, Arrays]:
    """The handwritten digits of scikit-learn, 8x8, in [0, 1]: training and test images."""
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype(np.float32) / 16
    x, x_test, y, y_test = train_test_split(
        images, labels, test_size=0.2, random_state=seed, stratify=labels
    )
    return (x, y), (x_test, y_test)


def batches(data: Arrays, *, epochs: int, batch_size: int, seed: int) -> Iterator[Arrays]:
    """Shuffled batches, epoch after epoch."""
    indices = grain.MapDataset.range(len(data[0])).seed(seed).shuffle()
    for batch in indices.repeat(epochs).batch(batch_size, drop_remainder=True):
        yield data[0][batch], data[1][batch]
