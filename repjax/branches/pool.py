"""An average pool that counts its padding."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from repjax import algebra
from repjax.algebra import Conv
from repjax.algebra.geometry import Axis
from repjax.branches.branch import Geometry, Leaves, Scope
from repjax.branches.convolution import (
    Sizes,
    axis_numbers,
    default_tap,
    join,
    join_or_one,
    require_taps,
)
from repjax.branches.identity import ChannelPreserving, padded


@dataclasses.dataclass(frozen=True)
class AveragePool(ChannelPreserving):
    """An average pool that counts its padding.

    Args:
        window: taps, one number for all axes or one per axis.
        tap: the tap that meets the identity, as in `KxK`.

    Raises:
        ValueError: as of `KxK`.

    Source: Ding et al., Diverse Branch Block, CVPR 2021.

    Example:
        >>> AveragePool(3).resolve(2, use_bias=False).formula()
        'average3x3'
    """

    window: Sizes
    tap: Sizes | None = None

    def resolve(self, dims: int, *, use_bias: bool) -> AveragePool:
        """This branch with every default written out."""
        window = axis_numbers(self.window, dims, "window")
        tap = default_tap(window) if self.tap is None else axis_numbers(self.tap, dims, "tap")
        require_taps(window, tap)
        return AveragePool(window, tap)

    @property
    def dims(self) -> int:
        """Number of spatial axes."""
        return len(self._window)

    @property
    def _window(self) -> tuple[int, ...]:
        assert isinstance(self.window, tuple), "resolve the branch first"
        return self.window

    @property
    def _tap(self) -> tuple[int, ...]:
        assert isinstance(self.tap, tuple), "resolve the branch first"
        return self.tap

    @property
    def label(self) -> str:
        """Name of its node: kind and size."""
        return f"average{join(self._window)}"

    def formula(self) -> str:
        """What it computes, in the grammar of names."""
        moved = self._tap != default_tap(self._window)
        suffix = f"[tap={join_or_one(self._tap)}]" if moved else ""
        return f"average{join(self._window)}{suffix}"

    def axes(self, dims: int) -> tuple[Axis, ...]:
        """The window's taps around the one that meets the identity."""
        return tuple(
            Axis(size, 1, tap, size - 1 - tap)
            for size, tap in zip(self._window, self._tap, strict=True)
        )

    def apply(self, scope: Scope, x: jax.Array, geometry: Geometry) -> jax.Array:
        """A windowed sum, divided by the number of taps."""
        axes = zip(self.axes(self.dims), geometry.padding, geometry.dilation, strict=True)
        x = padded(x, [(lo + axis.low * d, hi + axis.high * d) for axis, (lo, hi), d in axes])
        lead = (1,) * (x.ndim - self.dims - 1)
        total: jax.Array = lax.reduce_window(
            x,
            np.zeros((), x.dtype),  # a tracer here would have no gradient
            lax.add,
            window_dimensions=(*lead, *self._window, 1),
            window_strides=(*lead, *geometry.strides, 1),
            padding="VALID",
            window_dilation=(*lead, *geometry.dilation, 1),
        )
        return total / math.prod(self._window)

    def fold(self, leaves: Leaves, inputs: int, groups: int, dims: int) -> Conv:
        """1/taps on every tap, per channel."""
        padding = [(axis.low, axis.high) for axis in self.axes(dims)]
        widest = jnp.result_type(float)  # 1/9 must not be rounded to float32 among float64
        return algebra.average_pool(self._window, inputs, padding=padding, dtype=widest)
