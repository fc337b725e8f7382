"""Kernels that are never trained: edge masks, cosines, means, identities.

Their values lie in the collection `fixed`, beside `params`, so that no optimizer sees them
and a checkpoint of another framework can bring its own.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from repjax.branches.branch import Leaves, Request, get
from repjax.branches.convolution import Convolution, Sizes, axis_numbers

Pattern = Callable[[tuple[int, ...]], Any]


@dataclasses.dataclass(frozen=True)
class Fixed(Convolution):
    """A convolution with a known kernel, of every channel by itself.

    Args:
        pattern: the kernel: ``"sobelx"``, ``"sobely"``, ``"laplacian"`` (3x3 edge masks),
            ``"cosine"`` (one frequency per channel, over the height in the first half of
            them, over the width in the second), ``"mean"`` (1/taps), or ``"eye"`` (one tap
            that carries the identity between channel groups; with more outputs than inputs
            it repeats them).
        kernel_size: taps, one number for all axes or one per axis.

    Raises:
        ValueError: no such pattern, or not of that size.

    Source: edge masks: Zhang et al., Edge-oriented Convolution Block, ACM MM 2021; cosine,
    mean: Hu et al., Online Convolutional Re-parameterization, CVPR 2022.

    Example:
        >>> Fixed("sobelx").resolve(2, use_bias=False).formula()
        'sobelx3x3'
    """

    pattern: str
    kernel_size: Sizes = 3

    array = "mask"
    has_bias = False
    kernel_init = None
    bias_init = None

    def resolve(self, dims: int, *, use_bias: bool) -> Fixed:
        """This branch with every default written out."""
        if self.pattern not in PATTERNS:
            raise ValueError(f"fixed pattern {self.pattern!r}, expected one of {sorted(PATTERNS)}")
        size = axis_numbers(self.kernel_size, dims, "kernel_size")
        fitting = {"eye": set(size) == {1}, "mean": True, "cosine": dims == 2}
        if not fitting.get(self.pattern, size == (3, 3)):
            raise ValueError(f"fixed pattern {self.pattern!r} does not exist with size {size}")
        return Fixed(self.pattern, size)

    @property
    def kind(self) -> str:  # type: ignore[override]
        """The pattern."""
        return self.pattern

    @property
    def _size(self) -> tuple[int, ...]:
        assert isinstance(self.kernel_size, tuple), "resolve the branch first"
        return self.kernel_size

    def _groups(self, inputs: int, groups: int) -> int:
        return groups if self.pattern == "eye" else inputs

    def _features(self, inputs: int, features: int) -> int:
        return features if self.pattern == "eye" else inputs

    def inputs(self, leaves: Leaves, groups: int) -> int | None:
        """As many as outputs, or as the kernel reads in all groups."""
        *_, found, features = get(leaves, self.array).shape
        return int(found) * groups if self.pattern == "eye" else int(features)

    def _request(self, shape: tuple[int, ...]) -> Request:
        return Request(shape, functools.partial(_fill, PATTERNS[self.pattern]), fixed=True)


def _fill(
    pattern: Pattern,
    key: jax.Array,
    shape: Any,
    dtype: Any = jnp.float32,
    out_sharding: Any = None,
) -> jax.Array:
    return jnp.asarray(np.broadcast_to(pattern(shape), shape), dtype)


def _constant(rows: list[list[int]]) -> Pattern:
    return lambda shape: np.array(rows, float)[:, :, None, None]


def _mean(shape: tuple[int, ...]) -> Any:
    return np.full(shape, 1 / math.prod(shape[:-2]))


def _eye(shape: tuple[int, ...]) -> Any:
    *_, inputs, features = shape
    return np.arange(inputs)[:, None] == np.arange(features) % inputs


def _cosine(shape: tuple[int, ...]) -> Any:
    """``cos(pi * (place + 1/2) * frequency / taps)``."""
    height, width, _, features = shape
    channel = np.arange(features)
    rows = (np.arange(height)[:, None, None] + 0.5) * (channel + 1) / height
    columns = (np.arange(width)[None, :, None] + 0.5) * (channel + 1 - features / 2) / width
    return np.cos(np.pi * np.where(channel < features / 2, rows, columns))[:, :, None, :]


PATTERNS: dict[str, Pattern] = {
    "sobelx": _constant([[1, 0, -1], [2, 0, -2], [1, 0, -1]]),
    "sobely": _constant([[1, 2, 1], [0, 0, 0], [-1, -2, -1]]),
    "laplacian": _constant([[0, 1, 0], [1, -4, 1], [0, 1, 0]]),
    "cosine": _cosine,
    "mean": _mean,
    "eye": _eye,
}
