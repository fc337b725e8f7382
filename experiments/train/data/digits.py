"""The handwritten digits of scikit-learn as bytes: 1,797 images of 8x8, inside the package."""

from __future__ import annotations

import numpy as np

from experiments import digits as scikit_digits
from experiments.train.data.images import Array


def digits(seed: int = 0) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Training and test images with labels: (n, 8, 8, 1) of bytes, and (n,).

    Args:
        seed: of the split; a fifth are test images.
    """
    (x, y), (x_test, y_test) = scikit_digits.digits(seed)
    return (_as_bytes(x), y), (_as_bytes(x_test), y_test)


def _as_bytes(images: Array) -> Array:
    pixels: Array = np.round(images * 255).astype(np.uint8)
    return pixels
