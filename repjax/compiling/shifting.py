"""`shift_depthwise`: depthwise convolutions as sums of shifted products, one per tap."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from repjax import jaxprs
from repjax.leaves import Leaves

_UNROLLED = 49
"""So many taps are written one after the other; larger kernels are a loop over their rows."""


def shift_depthwise(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A function with its depthwise convolutions written as shifted multiply-adds.

    The same function otherwise, of the same inputs and outputs, under ``jit``, ``grad`` and
    ``vmap``. A kernel of 7x7 taps is 49 slices, products and sums that the compiler puts into
    one loop; larger kernels are a loop over their rows, so that the program stays small. With
    XLA:CPU of jaxlib 0.10 MobileOne is ten times faster like this. Other convolutions stay as
    they are, and so do calls with a derivative of their own.

    Args:
        fn: any function that JAX can trace; arguments are pytrees, leaves that are no arrays
            are handed on as they are.

    Example:
        >>> def blur(x, kernel):
        ...     return lax.conv_general_dilated(
        ...         x, kernel, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"),
        ...         feature_group_count=2)
        >>> x, kernel = jnp.arange(8.0).reshape(1, 4, 2), jnp.ones((3, 1, 2))
        >>> bool((shift_depthwise(blur)(x, kernel) == blur(x, kernel)).all())
        True
    """

    @functools.wraps(fn)
    def shifted(*args: Any, **kwargs: Any) -> Any:
        leaves = Leaves((args, kwargs), _is_input)

        def flat(arrays: Sequence[Any]) -> Any:
            inputs, options = leaves.rebuild(arrays)
            return fn(*inputs, **options)

        program, shapes = jax.make_jaxpr(flat, return_shape=True)(leaves.arrays)
        outputs = _run(program, leaves.arrays)
        return jax.tree.unflatten(jax.tree.structure(shapes), outputs)

    return shifted


def is_depthwise(equation: jaxprs.Equation) -> bool:
    """Whether an equation is a convolution that reads one input channel per output."""
    if equation.primitive.name != "conv_general_dilated":
        return False
    params = equation.params
    kernel, numbers = equation.invars[1].aval, params["dimension_numbers"]
    per_group = kernel.shape[numbers.rhs_spec[1]]
    real = jnp.issubdtype(kernel.dtype, jnp.floating)
    several = params["feature_group_count"] > 1 and params["batch_group_count"] == 1
    numeric = all(isinstance(end, int) for pair in params["padding"] for end in pair)
    sizes = all(isinstance(size, int) for size in equation.invars[0].aval.shape[1:])
    return bool(several and per_group == 1 and real and numeric and sizes)


def has_depthwise(jaxpr: jaxprs.Jaxpr) -> bool:
    """Whether a program holds a depthwise convolution, at any depth."""
    return any(
        is_depthwise(equation) or any(map(has_depthwise, jaxprs.programs_in(equation)))
        for equation in jaxprs.body_of(jaxpr).equations
    )


def _run(jaxpr: jaxprs.Jaxpr, values: Sequence[Any]) -> list[Any]:
    return jaxprs.interpret(jaxpr, values, _step, keep=jaxprs.is_custom_derivative)


def _step(equation: jaxprs.Equation, values: list[Any], scope: str) -> Sequence[Any]:
    if is_depthwise(equation):
        return [_shifted_sum(_Depthwise.of(equation), values[0], values[1])]
    if any(map(has_depthwise, jaxprs.programs_in(equation))):
        looped = jaxprs.bind_loop(equation, values, _run)
        if looped is not None:
            return looped
    return jaxprs.bind(equation, values)


@dataclasses.dataclass(frozen=True)
class _Depthwise:
    """What a depthwise convolution reads, in the order (batch, spatial..., channels)."""

    inside: tuple[int, ...]
    outside: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    spread: tuple[int, ...]
    dilation: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: Any

    @classmethod
    def of(cls, equation: jaxprs.Equation) -> _Depthwise:
        """Read an equation."""
        params, numbers = equation.params, equation.params["dimension_numbers"]
        orders = [(spec[0], *spec[2:], spec[1]) for spec in (numbers.lhs_spec, numbers.out_spec)]
        rhs = (*numbers.rhs_spec[2:], numbers.rhs_spec[1], numbers.rhs_spec[0])
        shape = equation.outvars[0].aval.shape
        return cls(
            *(orders[0], orders[1], rhs, tuple(params["window_strides"])),
            *(tuple(params["padding"]), tuple(params["lhs_dilation"])),
            tuple(params["rhs_dilation"]),
            tuple(shape[axis] for axis in orders[1]),
            equation.outvars[0].aval.dtype,
        )


def _shifted_sum(one: _Depthwise, x: jax.Array, kernel: jax.Array) -> jax.Array:
    x, kernel = jnp.transpose(x, one.inside), jnp.transpose(kernel, one.kernel)
    wide = jnp.promote_types(jnp.promote_types(x.dtype, kernel.dtype), jnp.float32)
    wide = jnp.promote_types(wide, one.dtype)
    x, kernel = x.astype(wide), kernel.astype(wide)
    config = [
        (low, high, spread - 1) for (low, high), spread in zip(one.padding, one.spread, strict=True)
    ]
    x = lax.pad(x, jnp.zeros((), wide), [(0, 0, 0), *config, (0, 0, 0)])
    features, channels = kernel.shape[-1], x.shape[-1]
    if features != channels:
        x = jnp.repeat(x, features // channels, axis=-1)
    taps = kernel.shape[:-2]
    kernel = kernel.reshape((*taps, features))
    if math.prod(taps) <= _UNROLLED or len(taps) == 1:
        total = _over_taps(one, x, kernel)
    else:
        total = _over_rows(one, x, kernel)
    return jnp.transpose(total.astype(one.dtype), [one.outside.index(a) for a in range(x.ndim)])


def _over_taps(one: _Depthwise, x: jax.Array, kernel: jax.Array) -> jax.Array:
    total = None
    for tap in np.ndindex(kernel.shape[:-1]):
        part = _seen_by(one, x, tap) * kernel[tap]
        total = part if total is None else total + part
    assert total is not None
    return total


def _over_rows(one: _Depthwise, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A loop over the first axis of the kernel; the rest tap by tap."""
    rest = dataclasses.replace(one, strides=(1, *one.strides[1:]), dilation=(1, *one.dilation[1:]))
    extent = (one.shape[1] - 1) * one.strides[0] + 1

    @jax.checkpoint
    def row(total: jax.Array, tap: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        place, taps = tap
        rows = lax.dynamic_slice_in_dim(x, place, extent, axis=1)
        rows = lax.slice_in_dim(rows, 0, extent, one.strides[0], axis=1)
        return total + _over_taps(rest, rows, taps[None]), None

    start = jnp.zeros((x.shape[0], *one.shape[1:]), x.dtype)
    places = jnp.arange(kernel.shape[0]) * one.dilation[0]
    total, _ = lax.scan(row, start, (places, kernel))
    return total


def _seen_by(one: _Depthwise, x: jax.Array, tap: tuple[int, ...]) -> jax.Array:
    """The pixels that a tap reads, one for each output."""
    starts = [place * step for place, step in zip(tap, one.dilation, strict=True)]
    sizes = zip(starts, one.shape[1:-1], one.strides, strict=True)
    limits = [start + (size - 1) * stride + 1 for start, size, stride in sizes]
    begin, end = (0, *starts, 0), (x.shape[0], *limits, x.shape[-1])
    return lax.slice(x, begin, end, (1, *one.strides, 1))


def _is_input(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | float | complex) or hasattr(leaf, "__array__")
