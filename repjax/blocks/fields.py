"""What the fields of a block may be, checked when it first sees data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from repjax.algebra.padding import padding_pairs
from repjax.branches import Branch
from repjax.branches.convolution import axis_numbers, is_whole

LONGEST_PATH = 240


def require_whole(name: str, value: Any, least: int = 1, hint: str = "") -> None:
    """Refuse a value that is no whole number, or too small.

    Raises:
        ValueError: `value` is no whole number, or below `least`.

    Example:
        >>> require_whole("features", 2.5)
        Traceback (most recent call last):
        ValueError: features is a whole number, at least 1; found 2.5
    """
    if not is_whole(value) or value < least:
        raise ValueError(f"{name} is a whole number, at least {least}; found {value!r}{hint}")


def require_branches(branches: Any) -> None:
    """Refuse a value that is no sequence of branches.

    Raises:
        ValueError: `branches` is a single branch or no sequence, or an entry is no branch.
    """
    if isinstance(branches, Branch):
        kind = type(branches).__name__
        raise ValueError(f"branches is a sequence; found one {kind}, write ({kind}(...),)")
    if not isinstance(branches, Sequence) or isinstance(branches, str):
        raise ValueError(f"branches is a sequence such as (KxK(3), Pointwise()); found {branches}")
    for branch in branches:
        if isinstance(branch, type):
            example = f"{branch.__name__}(...)"
            raise ValueError(f"branches holds the class {branch.__name__}; write {example}")
        if not isinstance(branch, Branch):
            raise ValueError(
                f"branches holds {branch!r} of type {type(branch).__name__}; expected "
                "descriptions such as KxK(3), see repjax.branches"
            )


def require_geometry(
    strides: Any, padding: Any, dilation: Any, groups: int, channels: tuple[int, int], dims: int
) -> None:
    """Refuse an invalid geometry, and groups that do not divide both numbers of channels.

    Raises:
        ValueError: of either.
    """
    for name, value in (("strides", strides), ("dilation", dilation)):
        for number in axis_numbers(value, dims, name):
            require_whole(name, number)
    if padding is not None and not _is_padding(padding):
        raise ValueError(
            "padding is a whole number, one per axis, or (low, high) pairs, in pixels of the "
            f"fused convolution; found {padding!r}"
        )
    require_whole("groups", groups)
    for word, number in zip(("input", "output"), channels, strict=True):
        if number % groups:
            raise ValueError(f"groups={groups} does not divide the {number} {word} channels")


def _is_padding(padding: Any) -> bool:
    if is_whole(padding) or isinstance(padding, str):
        return True
    if not isinstance(padding, Sequence):
        return False
    return all(is_whole(n) for entry in padding for n in (entry if _pair(entry) else (entry,)))


def _pair(entry: Any) -> bool:
    return isinstance(entry, Sequence) and not isinstance(entry, str)


def require_short(node: tuple[str, ...], branch: Branch) -> None:
    """Refuse a block with arrays whose paths are too long for a store with a file per array.

    Args:
        node: the path of the block's node.
        branch: what it computes.

    Raises:
        ValueError: a path, joined by dots, has more than `LONGEST_PATH` characters.
    """
    collections = {"mean": "batch_stats", "var": "batch_stats", "mask": "fixed"}
    paths = (
        ".".join((collections.get(leaf[-1], "params"), *node, *leaf)) for leaf in branch.leaves()
    )
    longest = max(paths, key=len, default="")
    if len(longest) > LONGEST_PATH:
        raise ValueError(
            f"the path of an array would have {len(longest)} characters, expected at most "
            f"{LONGEST_PATH} (stores with a file per array); use fewer branches or shorter "
            f"names of modules: {longest[:120]}...{longest[-40:]}"
        )


def require_outputs_on(
    x: jax.Array, size: Sequence[int], strides: Any, padding: Any, dilation: Any
) -> None:
    """Refuse data so small, or cropped so far, that no output is left.

    Args:
        x: (batch..., spatial..., channels).
        size: taps of the fused convolution, as far as they reach without dilation.
        strides: of the block.
        padding: of the fused convolution, None where it keeps the size.
        dilation: of the block.

    Raises:
        ValueError: an axis has no output.
    """
    dims = len(size)
    if x.ndim < dims + 1:
        raise ValueError(f"data of {dims} spatial axes and channels expected; found {x.shape}")
    if padding is None:
        return
    image = x.shape[-1 - dims : -1]
    pairs = padding_pairs(padding, dims)
    spread = axis_numbers(dilation, dims, "dilation")
    for pixels, (low, high), taps, step in zip(image, pairs, size, spread, strict=True):
        if isinstance(pixels, int) and pixels + low + high < (taps - 1) * step + 1:
            raise ValueError(
                f"padding ({low}, {high}) leaves {pixels + low + high} of {pixels} pixels, where "
                f"the fused kernel reaches over {(taps - 1) * step + 1}; pad more, or give "
                "larger images"
            )
