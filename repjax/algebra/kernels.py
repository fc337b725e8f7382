"""Constructors: kernels with a meaning, and the pointwise maps that fold into them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from repjax.algebra.conv import Conv
from repjax.algebra.dtypes import fold_dtype
from repjax.algebra.errors import NotFusableError
from repjax.algebra.layouts import embed, regroup
from repjax.algebra.padding import Padding


def identity(features: int, *, dims: int = 2, dtype: DTypeLike = jnp.float32) -> Conv:
    """The identity on `features` channels: a depthwise convolution of one tap.

    Args:
        features: number of channels, in and out.
        dims: number of spatial axes.
        dtype: type of the kernel.

    Example:
        >>> bool((identity(3)(jnp.ones((1, 4, 4, 3))) == 1).all())
        True
    """
    return Conv(jnp.ones((1,) * dims + (1, features), dtype), groups=features)


def identity_kernel(
    kernel_size: Sequence[int],
    features: int,
    *,
    groups: int = 1,
    tap: Sequence[int] | None = None,
    dtype: DTypeLike = jnp.float32,
) -> jax.Array:
    """The kernel of the identity: one at its own channel on one tap, zero elsewhere.

    Args:
        kernel_size: taps per axis.
        features: number of channels, in and out.
        groups: number of channel groups of the result.
        tap: the tap that carries the identity, ``(size - 1) // 2`` per axis by default (the
            center of an odd size).
        dtype: type of the result.

    Returns:
        Kernel (spatial..., features/groups, features).

    Raises:
        NotFusableError: `tap` lies outside the kernel.

    Source: Ding et al., RepVGG, CVPR 2021.

    Example:
        >>> identity_kernel((3, 3), 4, groups=2)[1, 1]
        Array([[1., 0., 1., 0.],
               [0., 1., 0., 1.]], dtype=float32)
    """
    tap = tuple((size - 1) // 2 for size in kernel_size) if tap is None else tuple(tap)
    one = regroup(identity(features, dims=len(kernel_size), dtype=dtype), groups)
    return embed(one, kernel_size, low=tap).kernel.astype(dtype)


def pad_kernel(
    kernel: ArrayLike, kernel_size: Sequence[int], *, low: Sequence[int] | None = None
) -> jax.Array:
    """A kernel surrounded by zeros, up to `kernel_size` taps.

    Args:
        kernel: (spatial..., in/groups, out).
        kernel_size: taps per axis of the result.
        low: number of zeros before the kernel, per axis; by default the centers meet.

    Raises:
        NotFusableError: the centers cannot meet (odd difference of sizes) and `low` is not
            given, or the kernel does not fit.

    Source: Ding et al., RepVGG, CVPR 2021 (1x1 to 3x3).

    Example:
        >>> pad_kernel(jnp.ones((1, 1, 1)), (3,))[:, 0, 0]
        Array([0., 1., 0.], dtype=float32)
    """
    conv = Conv(kernel)
    if low is None:
        odd = [a for a, b in zip(kernel_size, conv.kernel_size, strict=True) if (a - b) % 2]
        if odd:
            raise NotFusableError(
                f"the centers of a kernel of size {conv.kernel_size} and of "
                f"{tuple(kernel_size)} taps lie half a pixel apart; say with low=(...) how "
                "many zeros come first"
            )
        low = [(a - b) // 2 for a, b in zip(kernel_size, conv.kernel_size, strict=True)]
    return embed(conv, kernel_size, low=low).kernel


def average_pool_kernel(
    window: Sequence[int], features: int, *, groups: int = 1, dtype: DTypeLike = jnp.float32
) -> jax.Array:
    """The kernel of an average pool that counts its padding: 1/taps at its own channel.

    Args:
        window: taps per axis.
        features: number of channels, in and out.
        groups: number of channel groups of the result.
        dtype: type of the result.

    Returns:
        Kernel (spatial..., features/groups, features).

    Source: Ding et al., Diverse Branch Block, CVPR 2021.

    Example:
        >>> average_pool_kernel((2, 2), 1)[:, :, 0, 0]
        Array([[0.25, 0.25],
               [0.25, 0.25]], dtype=float32)
    """
    return regroup(average_pool(window, features, dtype=dtype), groups).kernel


def average_pool(
    window: Sequence[int],
    features: int,
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = 0,
    dtype: DTypeLike = jnp.float32,
) -> Conv:
    """An average pool that counts its padding, as a depthwise convolution.

    A pool that leaves padding out of its mean is no convolution at the border.

    Args:
        window: taps per axis.
        features: number of channels, in and out.
        strides: one number or one per axis.
        padding: as of `Conv`.
        dtype: type of the kernel.

    Raises:
        ValueError: strides or padding are none for that number of axes.

    Example:
        >>> average_pool((2,), 1, strides=2)(jnp.array([[1.0], [3.0], [5.0], [7.0]]))[:, 0]
        Array([2., 6.], dtype=float32)
    """
    value = jnp.full((*window, 1, features), 1 / math.prod(window), dtype)
    return Conv(value, strides=strides, padding=padding, groups=features)


def channel_affine(
    scale: ArrayLike | None = None, shift: ArrayLike | None = None, *, dims: int = 2
) -> Conv:
    """A scale and a shift per channel, each optional, as a depthwise convolution.

    Args:
        scale: (features,), or None for ones.
        shift: (features,), or None for zeros.
        dims: number of spatial axes.

    Raises:
        ValueError: neither is given.

    Example:
        >>> channel_affine(jnp.array([2.0]), jnp.array([1.0]))(jnp.ones((1, 1, 1, 1)))
        Array([[[[3.]]]], dtype=float32)
    """
    if scale is None and shift is None:
        raise ValueError("channel_affine needs a scale or a shift")
    if scale is None:
        scale = jnp.ones_like(jnp.asarray(shift))
    kernel = jnp.asarray(scale).reshape((1,) * dims + (1, -1))
    return Conv(kernel, shift, groups=kernel.shape[-1])


def batch_norm(
    mean: ArrayLike,
    var: ArrayLike,
    scale: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    epsilon: float = 1e-5,
    dims: int = 2,
) -> Conv:
    """Batch norm in inference, as a depthwise convolution.

    ``y = (x - mean) * scale / sqrt(var + epsilon) + bias``

    Args:
        mean: running mean (features,).
        var: running variance (features,).
        scale: (features,), or None for ones.
        bias: (features,), or None for zeros.
        epsilon: as in the network; Flax's default is 1e-5.
        dims: number of spatial axes.

    Source: Ioffe and Szegedy, Batch Normalization, ICML 2015.

    Example:
        >>> batch_norm(jnp.array([1.0]), jnp.array([3.0]), epsilon=1.0).bias
        Array([-0.5], dtype=float32)
    """
    given = [jnp.asarray(leaf) for leaf in (mean, var, scale, bias) if leaf is not None]
    dtype = fold_dtype(*(leaf.dtype for leaf in given))
    mean, var = jnp.asarray(mean).astype(dtype), jnp.asarray(var).astype(dtype)
    numerator = 1.0 if scale is None else jnp.asarray(scale).astype(dtype)
    factor = numerator / jnp.sqrt(var + epsilon)
    shift = -mean * factor
    if bias is not None:
        shift = shift + jnp.asarray(bias).astype(dtype)
    return channel_affine(factor, shift, dims=dims)
