"""IDX files, the format of MNIST and Fashion-MNIST, plain or compressed by gzip."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from experiments.train.data.images import Array
from experiments.train.errors import RunError, one_line

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def read_split(folder: Path, split: str) -> tuple[Array, Array]:
    """Images (n, height, width, 1) and labels (n,), both uint8.

    Args:
        folder: where the four files are, each plain or with the ending .gz.
        split: "train" or "test".

    Raises:
        RunError: a file is missing or damaged, or there are more of one than of the other.
    """
    paths = [_path(folder, name) for name in FILES[split]]
    images, labels = (read(path, rank) for path, rank in zip(paths, (3, 1), strict=True))
    if len(images) != len(labels):
        raise RunError(f"{paths[0]} has {len(images)} images, {paths[1]} {len(labels)} labels")
    return images[..., None], labels


def read(path: Path, rank: int) -> Array:
    """The bytes of an IDX file, as an array.

    Args:
        path: of the file.
        rank: number of axes that are expected.

    Raises:
        RunError: it is no IDX file of that rank, or shorter or longer than it says.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise RunError(f"{path}: truncated or damaged: {one_line(error)}") from error
    except OSError as error:
        raise RunError(f"{path}: {error.strerror or one_line(error)}") from error
    header = 4 + 4 * rank
    if len(content) < header or content[:4] != bytes([0, 0, 8, rank]):
        raise RunError(f"{path}: no IDX file of bytes with {rank} axes; it begins {content[:4]!r}")
    shape = struct.unpack(f">{rank}I", content[4:header])
    if len(content) - header != math.prod(shape):
        word = "truncated" if len(content) - header < math.prod(shape) else "too long"
        raise RunError(
            f"{path}: {word}: {len(content) - header} bytes for {'x'.join(map(str, shape))}"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _path(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.exists():
            return path
    raise RunError(f"{folder}: has neither {name} nor {name}.gz")
