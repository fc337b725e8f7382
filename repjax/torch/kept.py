"""Norms that official deploy forms keep and ours do not: written so that they change nothing."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from repjax.torch.folds import FoldError

ROUNDOFFS = 16.0
"""A bias may be off by so many unit roundoffs of its terms, as in `repjax.verify`."""


def behind(
    norm: str, kernel: np.ndarray, bias: np.ndarray | None, epsilon: float
) -> dict[str, np.ndarray]:
    """A norm behind a convolution that adds a bias and changes nothing else.

    Args:
        norm: its place.
        kernel: of the convolution, (out, in, ...).
        bias: what it adds, None for nothing.
        epsilon: of the norm.

    Example:
        >>> arrays = behind("bn", np.ones((2, 4, 1, 1)), np.arange(2.0), 1e-5)
        >>> {name: array.tolist() for name, array in arrays.items()}["bn.bias"]
        [0.0, 1.0]
    """
    return _norm(norm, kernel.shape[0], bias, epsilon, kernel.dtype)


def in_front(
    norm: str, conv: str, kernel: np.ndarray, bias: np.ndarray | None, epsilon: float
) -> dict[str, np.ndarray]:
    """A norm in front of a pointwise map that gives it a bias by a shift, and nothing else.

    Args:
        norm: its place.
        conv: that of the map.
        kernel: of the map, (out, in) or (out, in, 1, 1).
        bias: what the map is to add, None for nothing.
        epsilon: of the norm.

    Raises:
        FoldError: no shift in front of the map gives that bias.

    Example:
        >>> arrays = in_front("bn", "qkv", np.eye(2)[[0, 1, 1]], np.array([3.0, 4.0, 4.0]), 1e-5)
        >>> arrays["bn.bias"].round(9).tolist()
        [3.0, 4.0]
    """
    outputs, inputs = kernel.shape[:2]
    matrix = kernel.reshape(outputs, inputs)
    shift = None
    if bias is not None:
        wide, wanted = matrix.astype(np.float64), bias.astype(np.float64)
        shift = np.linalg.lstsq(wide, wanted)[0]
        terms = np.abs(wide) @ np.abs(shift) + np.abs(wanted)
        off = np.abs(wide @ shift - wanted)
        kind: Any = jnp.finfo(bias.dtype)  # type: ignore[no-untyped-call]
        allowed = ROUNDOFFS * float(kind.eps) / 2 * terms
        if (off > allowed).any():
            raise FoldError(
                f"{conv}.bias: has no place there, where a norm in front ({norm}) shifts the "
                f"input; no shift gives this bias, the nearest is off by {off.max():.1e} where "
                f"{allowed[off.argmax()]:.1e} is rounding (was it trained in deploy form?)"
            )
    return _norm(norm, inputs, shift, epsilon, kernel.dtype)


def _norm(
    norm: str, channels: int, shift: np.ndarray | None, epsilon: float, dtype: np.dtype
) -> dict[str, np.ndarray]:
    """A norm whose scale is 1: its variance and epsilon add up to 1."""
    ones, zeros = np.ones(channels, dtype), np.zeros(channels, dtype)
    return {
        f"{norm}.weight": ones,
        f"{norm}.bias": zeros if shift is None else shift.astype(dtype),
        f"{norm}.running_mean": zeros.copy(),
        f"{norm}.running_var": np.full(channels, 1 - epsilon, dtype),
        f"{norm}.num_batches_tracked": np.asarray(0, np.int64),
    }
