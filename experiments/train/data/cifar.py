"""CIFAR-10 in its binary version: records of one label and 3x32x32 bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from experiments.train.data.images import Array
from experiments.train.errors import RunError

FILES = {
    "train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    "test": ("test_batch.bin",),
}
CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
RECORD = 1 + 3 * 32 * 32


def read_split(folder: Path, split: str) -> tuple[Array, Array]:
    """Images (n, 32, 32, 3) and labels (n,), both uint8.

    Args:
        folder: where the six files are.
        split: "train" or "test".

    Raises:
        RunError: a file is missing or damaged.
    """
    records = np.concatenate([_records(folder / name) for name in FILES[split]])
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), records[:, 0]


def _records(path: Path) -> Array:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RunError(f"{path}: {error.strerror}") from error
    if not content or len(content) % RECORD:
        raise RunError(
            f"{path}: truncated or damaged: {len(content)} bytes, no multiple of {RECORD} "
            "(one label, 32x32 pixels, 3 colors)"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, RECORD)
    if records[:, 0].max() >= len(CLASSES):
        raise RunError(f"{path}: damaged: has the label {records[:, 0].max()}, expected 0 to 9")
    return records
