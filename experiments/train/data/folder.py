"""A folder of images: train/CLASS/*.jpg and val/CLASS/*.jpg, as ImageNet is laid out."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
from PIL import Image

from experiments.train.data.images import Array
from experiments.train.errors import RunError, one_line

ENDINGS = {".jpg", ".jpeg", ".png"}
CROP = 0.875
"""Part of the shorter side that the center crop keeps when images are not augmented."""


@dataclasses.dataclass(frozen=True)
class FolderImages:
    """Images that are opened when they are read.

    Args:
        paths: of the files.
        size: height and width that they get, in pixels.
        area: smallest and largest part of the image that a random crop takes.
        flip: whether they are mirrored at random.
    """

    paths: tuple[Path, ...]
    size: int
    area: tuple[float, float] = (0.08, 1.0)
    flip: bool = True

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        return self.size, self.size, 3

    def read(self, indices: Array, draws: Array | None) -> Array:
        """Images of those numbers; see `Images.read`.

        Raises:
            RunError: a file is no image, or damaged.
        """
        rows: list[Array | None] = [None] * len(indices) if draws is None else list(draws)
        return np.stack(
            [self._one(self.paths[index], row) for index, row in zip(indices, rows, strict=True)]
        )

    def _one(self, path: Path, draws: Array | None) -> Array:
        try:
            with Image.open(path) as file:
                box = center(file.size) if draws is None else crop(file.size, self.area, draws)
                image = file.convert("RGB").resize(
                    (self.size, self.size), Image.Resampling.BILINEAR, box=box
                )
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise RunError(f"{path}: no image, or damaged: {one_line(error, 120)}") from error
        pixels = np.asarray(image)
        return pixels[:, ::-1] if draws is not None and self.flip and draws[2] >= 0.5 else pixels


Box = tuple[float, float, float, float]


def center(size: tuple[int, int]) -> Box:
    """The middle square of an image, as (left, upper, right, lower) pixels.

    Args:
        size: width and height.

    Example:
        >>> center((200, 100))
        (56.25, 6.25, 143.75, 93.75)
    """
    width, height = size
    side = CROP * min(size)
    left, upper = (width - side) / 2, (height - side) / 2
    return left, upper, left + side, upper + side


def crop(size: tuple[int, int], area: tuple[float, float], draws: Array) -> Box:
    """A random part of an image, of an aspect ratio from 3/4 to 4/3 where that fits.

    Args:
        size: width and height.
        area: smallest and largest part of the image.
        draws: uniform random numbers (DRAWS,).

    Source: Szegedy et al., Going Deeper with Convolutions, CVPR 2015.
    """
    width, height = size
    part = (area[0] + (area[1] - area[0]) * draws[3]) * width * height
    ratio = math.exp((2 * draws[4] - 1) * math.log(4 / 3))
    across, down = min(math.sqrt(part * ratio), width), min(math.sqrt(part / ratio), height)
    left, upper = draws[0] * (width - across), draws[1] * (height - down)
    return left, upper, left + across, upper + down


def find(folder: Path) -> tuple[tuple[str, ...], tuple[Path, ...], Array]:
    """Names of the classes, paths of the images in order, and labels (n,).

    Args:
        folder: with one sub-folder per class.

    Raises:
        RunError: it is missing, has no sub-folder, or one of these has no image.
    """
    if not folder.is_dir():
        raise RunError(f"{folder}: there is no such folder")
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
    if not classes:
        raise RunError(f"{folder}: has no sub-folder; expected one per class, with its images")
    paths: list[Path] = []
    labels: list[int] = []
    for number, name in enumerate(classes):
        found = sorted(p for p in (folder / name).iterdir() if p.suffix.lower() in ENDINGS)
        if not found:
            raise RunError(f"{folder / name}: class without an image (.jpg, .jpeg or .png)")
        paths += found
        labels += [number] * len(found)
    return tuple(classes), tuple(paths), np.asarray(labels)
