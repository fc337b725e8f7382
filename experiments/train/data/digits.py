"""The handwritten digits of scikit-learn: 1,797 images of 8x8, inside the package."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from experiments.train.data.images import Array


def digits(seed: int = 0) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Training and test images with labels: (n, 8, 8, 1) of numbers from 0 to 16, and (n,).

    Args:
        seed: of the split; a fifth are test images.
    """
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype(np.float32)
    x, x_test, y, y_test = train_test_split(
        images, labels, test_size=0.2, random_state=seed, stratify=labels
    )
    return (x, y), (x_test, y_test)


def as_pixels(images: Array) -> Array:
    """Numbers from 0 to 16 as bytes from 0 to 255."""
    pixels: Array = np.round(images * (255 / 16)).astype(np.uint8)
    return pixels
