"""The accepted spellings of sizes and padding, and what 'SAME' means for one input size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jax import lax

Size = int | Sequence[int] | None
Padding = int | Sequence[int] | Sequence[tuple[int, int]] | str


def per_axis(value: int | Sequence[int], dims: int, name: str) -> tuple[int, ...]:
    """One number per spatial axis, from one number or a sequence of them.

    Raises:
        ValueError: the sequence has another length than `dims`.
    """
    numbers = (
        (int(value),) * dims
        if isinstance(value, int | np.integer)
        else tuple(int(n) for n in value)
    )
    if len(numbers) != dims:
        raise ValueError(f"{name} has {len(numbers)} entries for {dims} spatial axes: {value}")
    return numbers


def sizes_or_any(size: Size, dims: int) -> tuple[int | None, ...]:
    """One size per spatial axis; None for each axis where `size` is None, that is, any size.

    Raises:
        ValueError: a sequence of another length than `dims`.
    """
    return (None,) * dims if size is None else per_axis(size, dims, "size")


def padding_pairs(padding: Padding, dims: int) -> tuple[tuple[int, int], ...]:
    """(low, high) padding per spatial axis, from any of the accepted spellings.

    Raises:
        ValueError: "SAME" or another string, another number of axes than `dims`, or an entry
            that is no pair.
    """
    if isinstance(padding, str):
        if padding == "VALID":
            return ((0, 0),) * dims
        raise ValueError(
            f"padding {padding!r} depends on the input size; give explicit numbers, or "
            "resolve it with repjax.algebra.same_padding(size, kernel_size, strides=...)"
        )
    entries: tuple[int | Sequence[int], ...]
    entries = (int(padding),) * dims if isinstance(padding, int | np.integer) else tuple(padding)
    if len(entries) != dims:
        raise ValueError(f"padding has {len(entries)} entries for {dims} spatial axes: {padding}")
    pairs = [
        (entry, entry) if isinstance(entry, int | np.integer) else tuple(entry) for entry in entries
    ]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"padding takes (low, high) pairs; found {padding}")
    return tuple((int(low), int(high)) for low, high in pairs)


def same_padding(
    size: Sequence[int],
    kernel_size: Sequence[int],
    *,
    strides: Sequence[int] | int = 1,
    dilation: Sequence[int] | int = 1,
) -> tuple[tuple[int, int], ...]:
    """The pairs that 'SAME' means for one input size (rule R2).

    Args:
        size: spatial input size, in pixels.
        kernel_size: taps per axis.
        strides: one number or one per axis.
        dilation: distance between taps, one number or one per axis.

    Returns:
        (low, high) padding per axis. With strides above 1 it depends on `size`, so that no
        single explicit padding stands for 'SAME'.

    Raises:
        ValueError: `kernel_size` has another number of axes than `dilation`, or than `size`
            where that is one number.

    Example:
        >>> same_padding((8, 9), (3, 3), strides=2)
        ((0, 1), (1, 1))
    """
    dims = len(size)
    wide_strides = (strides,) * dims if isinstance(strides, int) else tuple(strides)
    wide_dilation = (dilation,) * dims if isinstance(dilation, int) else tuple(dilation)
    extent = [(k - 1) * d + 1 for k, d in zip(kernel_size, wide_dilation, strict=True)]
    pairs = lax.padtype_to_pads(tuple(size), extent, wide_strides, "SAME")
    return tuple((int(low), int(high)) for low, high in pairs)
