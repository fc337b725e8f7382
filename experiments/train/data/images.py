"""A set of images with labels, wherever the images are."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import numpy as np

Array = np.ndarray[Any, Any]

DRAWS = 6
"""Random numbers per image: what augments one image does not depend on the others."""


class Images(Protocol):
    """Images that are read by number."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        ...

    def read(self, indices: Array, draws: Array | None) -> Array:
        """Images of those numbers.

        Args:
            indices: numbers (n,).
            draws: uniform random numbers (n, DRAWS) to augment them with; None leaves them.

        Returns:
            Pixels (n, height, width, channels), uint8.
        """
        ...


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """Images and their labels.

    Args:
        images: all of them.
        labels: classes by number, (n,), of those images that belong to the set.
        indices: their numbers among the images, (n,).
    """

    images: Images
    labels: Array
    indices: Array

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, places: Array, draws: Array | None = None) -> tuple[Array, Array]:
        """Images and labels at places of the set; see `Images.read`."""
        return self.images.read(self.indices[places], draws), self.labels[places]


@dataclasses.dataclass(frozen=True)
class Splits:
    """Images to train with, to watch the accuracy on, and to test at the end.

    Args:
        train: of the steps.
        watch: of the accuracy after each epoch.
        test: of the accuracy that is reported.
        classes: names.
        mean: of the channels, of values from 0 to 1.
        std: of the channels.
    """

    train: ImageSet
    watch: ImageSet
    test: ImageSet
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def whole(images: Images, labels: Array) -> ImageSet:
    """The set of all images.

    Args:
        images: n of them.
        labels: (n,).
    """
    return ImageSet(images, labels.astype(np.int32), np.arange(len(labels)))


def held_out(given: ImageSet, fraction: float, seed: int) -> tuple[ImageSet, ImageSet]:
    """The set without a random part, and that part.

    Args:
        given: the set.
        fraction: of its images, at least one image.
        seed: of the draw.
    """
    order = np.random.default_rng((seed, 1)).permutation(len(given))
    count = max(1, round(fraction * len(given)))

    def part(places: Array) -> ImageSet:
        places = np.sort(places)
        return ImageSet(given.images, given.labels[places], given.indices[places])

    return part(order[count:]), part(order[:count])
