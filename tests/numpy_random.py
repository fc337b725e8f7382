"""JAX's default random numbers (threefry, Salmon et al., SC 2011) in NumPy, bit for bit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

Array = np.ndarray[Any, Any]
ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
KEY = np.dtype([("first", np.uint32), ("second", np.uint32)])
"""A key is one element of this type, so that arrays of keys have their shape."""


def of_keys(keys: Any) -> Array | None:
    """A JAX array of keys as an array of `KEY`; None where they are of another kind."""
    if str(jax.random.key_impl(keys)) != "threefry2x32":
        return None
    return np.ascontiguousarray(jax.random.key_data(keys)).view(KEY)[..., 0]


def to_keys(array: Array) -> Any:
    """The JAX array of keys for an array of `KEY`."""
    data = np.ascontiguousarray(array[..., None]).view(np.uint32)
    return jax.random.wrap_key_data(jax.device_put(data))


def threefry(key: Array, high: Array, low: Array) -> tuple[Array, Array]:
    """Twenty rounds on two words per number."""
    first, second = key["first"], key["second"]
    schedule = (first, second, first ^ second ^ np.uint32(0x1BD11BDA))
    x, y = high + first, low + second
    for turn in range(5):
        for rotation in ROTATIONS[turn % 2]:
            x = x + y
            y = x ^ ((y << np.uint32(rotation)) | (y >> np.uint32(32 - rotation)))
        x = x + schedule[(turn + 1) % 3]
        y = y + schedule[(turn + 2) % 3] + np.uint32(turn + 1)
    return x, y


def joined(words: tuple[Array, Array]) -> Array:
    keys = np.empty(words[0].shape, KEY)
    keys["first"], keys["second"] = words
    return keys


def counted(key: Array, shape: Sequence[int]) -> tuple[Array, Array]:
    """Two words for each place of a shape."""
    low = np.arange(math.prod(shape), dtype=np.uint32).reshape(tuple(shape))
    return threefry(key, np.zeros_like(low), low)


def bits(equation: Any, key: Array) -> Array | None:
    if key.shape:
        return None
    x, y = counted(key, equation.params["shape"])
    if equation.params["bit_width"] == 64:
        return (x.astype(np.uint64) << np.uint64(32)) | y
    return (x ^ y).astype(f"uint{equation.params['bit_width']}")


def split(equation: Any, key: Array) -> Array | None:
    return None if key.shape else joined(counted(key, equation.params["shape"]))


def fold_in(equation: Any, key: Array, number: Array) -> Array:
    number = np.broadcast_to(np.asarray(number).astype(np.uint32), key.shape)
    return joined(threefry(key, np.zeros_like(number), number))


OPERATIONS = {"random_bits": bits, "random_split": split, "random_fold_in": fold_in}
