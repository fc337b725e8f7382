"""Arrays on their way from PyTorch's layout to ours, each one checked."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


class ArrayError(ValueError):
    """An array that does not fit its leaf; the message does not name the array."""


def as_numpy(array: Any) -> np.ndarray:
    """An array or a PyTorch tensor as a NumPy array.

    A tensor may require a gradient; types that NumPy lacks (bfloat16) become float32, exactly.

    Args:
        array: anything that `numpy.asarray` takes, or a tensor.

    Raises:
        ArrayError: NumPy cannot read it.
    """
    try:
        if callable(getattr(array, "detach", None)):
            array = array.detach().cpu()
            if str(array.dtype) == "torch.bfloat16" or "float8" in str(array.dtype):
                array = array.float()
        return np.asarray(array)
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise ArrayError(f"is a {type(array).__name__} that NumPy cannot read: {reason}") from error


def to_ours(array: Any, leaf: str, wanted: jax.ShapeDtypeStruct) -> jax.Array:
    """An array of a state dict as the leaf of a variables tree.

    Args:
        array: in PyTorch's layout.
        leaf: name of the leaf, such as "kernel".
        wanted: shape and dtype of the leaf.

    Raises:
        ArrayError: the shape differs, the dtype is not floating point, or a number is not finite.

    Example:
        >>> wanted = jax.ShapeDtypeStruct((3, 5, 4, 8), jnp.float32)
        >>> to_ours(np.ones((8, 4, 3, 5)), "kernel", wanted).shape
        (3, 5, 4, 8)
        >>> to_ours(np.ones((8, 4, 5, 3)), "kernel", wanted)
        Traceback (most recent call last):
        repjax.torch.arrays.ArrayError: has shape (8, 4, 5, 3), expected (8, 4, 3, 5)
    """
    found = as_numpy(array)
    if not jnp.issubdtype(found.dtype, jnp.floating):
        raise ArrayError(f"has dtype {found.dtype}, expected floating point")
    shape = theirs(leaf, wanted.shape)
    if not same_map(found.shape, shape):
        raise ArrayError(f"has shape {found.shape}, expected {shape}")
    bad = int((~np.isfinite(found)).sum())
    if bad:
        raise ArrayError(f"{bad} of {found.size} numbers are not finite")
    if leaf == "var" and (found < 0).any():
        raise ArrayError(f"{int((found < 0).sum())} of {found.size} variances are negative")
    found = found.reshape(shape)
    dtype: Any = wanted.dtype
    with np.errstate(over="ignore"):
        ours = (hwio(found) if is_kernel(leaf) else found).astype(dtype)
    if not np.isfinite(ours).all():
        raise ArrayError(f"has numbers up to {np.abs(found).max():.3g}, too large for {dtype}")
    # `jnp.asarray` would compile a program for each shape
    return jax.device_put(ours)  # type: ignore[no-any-return]


def is_kernel(leaf: str) -> bool:
    """Whether leaves of that name have their axes in another order in PyTorch."""
    return leaf in ("kernel", "mask")


def theirs(leaf: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a leaf of ours in PyTorch's layout.

    Example:
        >>> theirs("kernel", (3, 5, 4, 8)), theirs("bias", (8,))
        ((8, 4, 3, 5), (8,))
    """
    return (*shape[:-3:-1], *shape[:-2]) if is_kernel(leaf) else shape


def same_map(found: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether arrays of two shapes in PyTorch's layout hold the same numbers in the same order.

    A 1x1 kernel and a matrix are the same map, and so are (1, C, 1, 1) and (C,).

    Example:
        >>> same_map((8, 4, 1, 1), (8, 4)), same_map((8, 4, 1, 3), (8, 4, 3, 1))
        (True, False)
    """
    if len(wanted) < 2:
        return tuple(n for n in found if n != 1) == tuple(n for n in wanted if n != 1)
    taps = found[2:], wanted[2:]
    return found[:2] == wanted[:2] and (taps[0] == taps[1] or {*taps[0], *taps[1]} == {1})


def hwio(array: np.ndarray) -> np.ndarray:
    """A kernel (out, in, spatial...) as (spatial..., in, out).

    Example:
        >>> hwio(np.ones((8, 4, 3, 5))).shape
        (3, 5, 4, 8)
    """
    return array.transpose(*range(2, array.ndim), 1, 0)


def oihw(array: np.ndarray) -> np.ndarray:
    """A kernel (spatial..., in, out) as (out, in, spatial...).

    Example:
        >>> oihw(np.ones((3, 5, 4, 8))).shape
        (8, 4, 3, 5)
    """
    return array.transpose(-1, -2, *range(array.ndim - 2))
