"""Images that fit into memory."""

from __future__ import annotations

import dataclasses

import numpy as np

from experiments.train.data.images import Array


@dataclasses.dataclass(frozen=True)
class ArrayImages:
    """Images in one array, moved and mirrored at random.

    Args:
        pixels: (n, height, width, channels), uint8.
        shift: largest move, in pixels.
        flip: whether they are mirrored.

    Example:
        >>> images = ArrayImages(np.arange(6, dtype=np.uint8).reshape(1, 2, 3, 1), flip=True)
        >>> images.read(np.array([0]), np.full((1, 6), 0.9))[0, :, :, 0].tolist()
        [[2, 1, 0], [5, 4, 3]]
    """

    pixels: Array
    shift: int = 0
    flip: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        height, width, channels = self.pixels.shape[1:]
        return height, width, channels

    def read(self, indices: Array, draws: Array | None) -> Array:
        """Images of those numbers; see `Images.read`."""
        found = self.pixels[indices]
        if draws is None:
            return found
        if self.shift:
            found = self._moved(found, draws)
        if self.flip:
            mirrored = (draws[:, 2] >= 0.5)[:, None, None, None]
            found = np.where(mirrored, found[:, :, ::-1], found)
        return found

    def _moved(self, found: Array, draws: Array) -> Array:
        height, width, _ = self.shape
        room = (self.shift, self.shift)
        padded = np.pad(found, ((0, 0), room, room, (0, 0)))
        starts = np.floor(draws[:, :2] * (2 * self.shift + 1)).astype(int)
        rows = starts[:, :1] + np.arange(height)
        columns = starts[:, 1:] + np.arange(width)
        numbers = np.arange(len(found))[:, None, None]
        moved: Array = padded[numbers, rows[:, :, None], columns[:, None, :]]
        return moved


def statistics(pixels: Array) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, of values from 0 to 1.

    Args:
        pixels: (n, height, width, channels), uint8.
    """
    counts = np.stack(
        [np.bincount(pixels[..., c].ravel(), minlength=256) for c in range(pixels.shape[-1])]
    )
    shares = counts / counts.sum(1, keepdims=True)
    values = np.arange(256) / 255
    mean = shares @ values
    std = np.sqrt(np.maximum(shares @ values**2 - mean**2, 0))
    return tuple(mean.tolist()), tuple(np.where(std > 0, std, 1).tolist())
