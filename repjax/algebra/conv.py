"""`Conv`: a convolution as a value: kernel, bias and geometry."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from repjax.algebra import arithmetic
from repjax.algebra.dtypes import common_dtype, fold_dtype
from repjax.algebra.geometry import Axis
from repjax.algebra.padding import Padding, padding_pairs, per_axis
from repjax.algebra.shapes import Shape, argument_problems


class Conv:
    """An affine map of images: one convolution with its bias. An immutable pytree.

    Output ``o`` at tap ``u`` reads the input at ``o * stride - low + u * dilation``, zero
    outside. An identity, a scale, a batch norm in inference, an average pool, a padded or
    cropped view are all a (depthwise) `Conv`. Any number of spatial axes, none included.

    Args:
        kernel: (spatial..., in/groups, out), floating point.
        bias: (out,), or None, which is a bias of exact zeros.
        strides: one number or one per spatial axis.
        padding: one number, one per axis, or (low, high) pairs, in pixels; negative numbers
            crop; "VALID" is 0. "SAME" depends on the input size: see `same_padding`.
        dilation: distance between taps, one number or one per axis.
        input_dilation: distance between input pixels (above 1: a transposed convolution).
        groups: number of channel groups.

    Raises:
        ValueError: the arguments do not describe a convolution; problems of shapes, types
            and groups are listed together. Nothing is checked when JAX rebuilds the pytree.

    Example:
        >>> conv = Conv(jnp.ones((3, 3, 2, 4)), padding=1)
        >>> conv(jnp.ones((1, 8, 8, 2))).shape
        (1, 8, 8, 4)
    """

    __slots__ = ("bias", "dilation", "groups", "input_dilation", "kernel", "padding", "strides")

    kernel: jax.Array
    bias: jax.Array | None
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    input_dilation: tuple[int, ...]
    groups: int

    def __init__(
        self,
        kernel: Any,
        bias: Any = None,
        *,
        strides: int | Sequence[int] = 1,
        padding: Padding = 0,
        dilation: int | Sequence[int] = 1,
        input_dilation: int | Sequence[int] = 1,
        groups: int = 1,
    ) -> None:
        kernel = jnp.asarray(kernel)
        bias = None if bias is None else jnp.asarray(bias)
        if kernel.ndim < 2:
            raise ValueError(
                f"a kernel has shape (spatial..., in/groups, out); found {kernel.shape}"
            )
        dims = kernel.ndim - 2
        fields = {
            "kernel": kernel,
            "bias": bias,
            "strides": per_axis(strides, dims, "strides"),
            "padding": padding_pairs(padding, dims),
            "dilation": per_axis(dilation, dims, "dilation"),
            "input_dilation": per_axis(input_dilation, dims, "input_dilation"),
            "groups": int(groups),
        }
        problems = argument_problems(**fields)
        if problems:
            raise ValueError("not a convolution: " + "; ".join(problems))
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"Conv is immutable; use conv.replace({name}=...)")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("Conv is immutable")

    def __reduce__(self) -> tuple[Any, ...]:
        static = tuple(getattr(self, name) for name in _STATIC)
        return _unflatten, (static, (self.kernel, self.bias))

    def replace(self, **changes: Any) -> Conv:
        """A copy with some fields changed, checked like a new one.

        Raises:
            ValueError: the new fields do not describe a convolution.
        """
        fields = {name: getattr(self, name) for name in _DATA + _STATIC}
        return Conv(**{**fields, **changes})

    def astype(self, dtype: DTypeLike) -> Conv:
        """The same map with kernel and bias in `dtype`."""
        bias = None if self.bias is None else self.bias.astype(dtype)
        return self.replace(kernel=self.kernel.astype(dtype), bias=bias)

    @property
    def dims(self) -> int:
        """Number of spatial axes."""
        return self.kernel.ndim - 2

    @property
    def kernel_size(self) -> tuple[int, ...]:
        """Taps per spatial axis."""
        return tuple(self.kernel.shape[:-2])

    @property
    def in_features(self) -> int:
        """Number of input channels."""
        return self.kernel.shape[-2] * self.groups

    @property
    def features(self) -> int:
        """Number of output channels."""
        return self.kernel.shape[-1]

    @property
    def axes(self) -> tuple[Axis, ...]:
        """Geometry, axis by axis."""
        return tuple(
            Axis(taps, stride, low, high, dilation, input_dilation)
            for taps, stride, (low, high), dilation, input_dilation in zip(
                self.kernel_size,
                self.strides,
                self.padding,
                self.dilation,
                self.input_dilation,
                strict=True,
            )
        )

    @property
    def shape(self) -> Shape:
        """Everything but the numbers: geometry, channels and groups."""
        return Shape(self.axes, self.in_features, self.features, self.groups)

    def output_size(self, size: Sequence[int]) -> tuple[int, ...]:
        """Spatial output size for a spatial input `size`, in pixels."""
        return tuple(axis.outputs(n) for axis, n in zip(self.axes, size, strict=True))

    def __call__(self, x: jax.Array, *, precision: lax.PrecisionLike = None) -> jax.Array:
        """Apply to data (batch..., spatial..., in) → (batch..., spatial..., out).

        One `jax.lax.conv_general_dilated`; any number of leading batch axes, none included.
        Data, kernel and bias are promoted to their common type.

        Raises:
            ValueError: `x` has too few axes or another number of channels.
        """
        dims = self.dims
        if x.ndim < dims + 1 or x.shape[-1] != self.in_features:
            raise ValueError(
                f"expected data (batch..., {dims} spatial axes, {self.in_features}), "
                f"found shape {x.shape}, for {self}"
            )
        dtype = common_dtype(*(leaf.dtype for leaf in jax.tree.leaves((x, self))))
        batch = x.shape[: x.ndim - dims - 1]
        flat = x.astype(dtype).reshape((math.prod(batch), *x.shape[len(batch) :]))
        y = arithmetic.convolved(flat, self.kernel.astype(dtype), self.shape, precision)
        if self.bias is not None:
            y = y + self.bias.astype(dtype)
        return y.reshape((*batch, *y.shape[1:]))

    def of_ones(self, size: int | Sequence[int]) -> jax.Array:
        """The output for an image of ones: (spatial outputs..., features), float32 at least.

        This evaluates a bias map (see `compose_with_bias_map`), without a convolution.

        Args:
            size: of the image in pixels, one number or one per spatial axis. A symbolic
                dimension (`jax.export`) is accepted, and costs a convolution.

        Raises:
            ValueError: there are several input channels, or sizes for other axes.

        Example:
            >>> Conv(jnp.ones((3, 1, 1)), padding=1).of_ones(4)[:, 0]
            Array([2., 3., 3., 2.], dtype=float32)
        """
        sizes = (size,) * self.dims if isinstance(size, int | np.integer) else tuple(size)
        if self.in_features != 1 or len(sizes) != self.dims:
            raise ValueError(f"expected one input channel and {self.dims} sizes: {self}, {size}")
        (conv,) = in_one_type(self)
        y = arithmetic.written_out(conv.kernel, conv.shape, sizes)
        return y if conv.bias is None else y + conv.bias

    def __str__(self) -> str:
        size = "x".join(map(str, self.kernel_size)) or "dense"
        words = [f"{size} convolution {self.in_features} → {self.features}"]
        words.append(f"strides {self.strides}, padding {self.padding}, dilation {self.dilation}")
        if any(number != 1 for number in self.input_dilation):
            words.append(f"input dilation {self.input_dilation}")
        words.append(f"groups {self.groups}, {'no bias' if self.bias is None else 'bias'}")
        return "[" + ", ".join(words) + "]"

    def __repr__(self) -> str:
        return f"Conv{self}"


def from_shape(kernel: jax.Array, bias: jax.Array | None, shape: Shape) -> Conv:
    """A `Conv` from its arrays and its `Shape`."""
    return Conv(
        kernel,
        bias,
        strides=shape.strides,
        padding=shape.padding,
        dilation=shape.dilation,
        input_dilation=shape.input_dilation,
        groups=shape.groups,
    )


def in_one_type(*convs: Conv) -> tuple[Conv, ...]:
    """The same maps in one type, float32 at least."""
    dtype = fold_dtype(*(leaf.dtype for leaf in jax.tree.leaves(convs)))
    return tuple(conv.astype(dtype) for conv in convs)


_DATA = ("kernel", "bias")
_STATIC = ("strides", "padding", "dilation", "input_dilation", "groups")


def _flatten_with_keys(conv: Conv) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    leaves = tuple((jax.tree_util.GetAttrKey(name), getattr(conv, name)) for name in _DATA)
    return leaves, tuple(getattr(conv, name) for name in _STATIC)


def _unflatten(static: tuple[Any, ...], leaves: Iterable[Any]) -> Conv:
    conv = object.__new__(Conv)
    for name, value in zip(_DATA + _STATIC, (*leaves, *static), strict=True):
        object.__setattr__(conv, name, value)
    return conv


jax.tree_util.register_pytree_with_keys(Conv, _flatten_with_keys, _unflatten)
