"""The operations of JAX programs in NumPy: no test waits for a compiler to see two values agree.

Each takes the equation and its operands and gives the result, or a list of results. Sums of
products of 16-bit floats are taken in float32; every result is rounded to its type by the caller.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np
from scipy import special

Array = np.ndarray[Any, Any]
Operation = Callable[..., Any]


def padded(x: Array, value: Any, config: Sequence[tuple[int, int, int]]) -> Array:
    """`lax.pad`: low, high and interior padding by axis; negative padding crops."""
    sizes = [n + max(n - 1, 0) * inner for n, (_, _, inner) in zip(x.shape, config, strict=True)]
    wide = np.full(sizes, value, x.dtype)
    wide[tuple(slice(None, None, inner + 1) for _, _, inner in config)] = x
    around = [(max(low, 0), max(high, 0)) for low, high, _ in config]
    wide = np.pad(wide, around, constant_values=value)
    crops = [(max(-low, 0), max(-high, 0)) for low, high, _ in config]
    ends = [(low, n - high) for n, (low, high) in zip(wide.shape, crops, strict=True)]
    return wide[tuple(slice(low, max(low, high)) for low, high in ends)]


def windows(
    x: Array, sizes: Sequence[int], strides: Sequence[int], dilation: Sequence[int]
) -> Array:
    """Views of the last axes of `x`: their places first, the axes of the window last."""
    first = x.ndim - len(sizes)
    extents = [(size - 1) * step + 1 for size, step in zip(sizes, dilation, strict=True)]
    places = [max(n - e + 1, 0) for n, e in zip(x.shape[first:], extents, strict=True)]
    if 0 in places:
        counts = [-(-n // step) for n, step in zip(places, strides, strict=True)]
        return np.zeros((*x.shape[:first], *counts, *sizes), x.dtype)
    axes = tuple(range(first, x.ndim))
    found = np.lib.stride_tricks.sliding_window_view(x, extents, axes)
    steps = [slice(None, None, step) for step in (*strides, *dilation)]
    return found[(*[slice(None)] * first, *steps)]


def convolve(equation: Any, x: Array, kernel: Array) -> Array:
    params = equation.params
    left, right, out = params["dimension_numbers"]
    x, kernel = summable(x).transpose(left), summable(kernel).transpose(right)
    config = [(0, 0, 0)] * 2
    for (low, high), dilation in zip(params["padding"], params["lhs_dilation"], strict=True):
        config.append((low, high, dilation - 1))
    x = padded(x, 0, config)
    parts = params["batch_group_count"]
    pairs = zip(np.split(x, parts), np.split(kernel, parts), strict=True)
    y = np.concatenate([grouped(params, one, kernel) for one, kernel in pairs], 1)
    return y.transpose(np.argsort(out))


def grouped(params: Any, x: Array, kernel: Array) -> Array:
    """A convolution of (batch, channels, ...) with (features, channels, ...), in groups."""
    groups, (features, inputs, *sizes) = params["feature_group_count"], kernel.shape
    views = windows(x, sizes, params["window_strides"], params["rhs_dilation"])
    batch, _, *shape = views.shape[: x.ndim]
    places, taps = math.prod(shape), math.prod(sizes)
    views = views.reshape(batch, groups, inputs, places, taps).transpose(1, 0, 3, 2, 4)
    columns = views.reshape(groups, batch * places, inputs * taps)
    matrices = kernel.reshape(groups, features // groups, inputs * taps).transpose(0, 2, 1)
    y = (columns @ matrices).reshape(groups, batch, places, features // groups)
    return y.transpose(1, 0, 3, 2).reshape(batch, features, *shape)


def dot(equation: Any, x: Array, y: Array) -> Array:
    (left, right), (batch_left, batch_right) = equation.params["dimension_numbers"]
    x, shape_x = rows(summable(x), batch_left, left)
    y, shape_y = rows(summable(y), batch_right, right)
    batch = tuple(equation.outvars[0].aval.shape[: len(batch_left)])
    return (x @ y.swapaxes(1, 2)).reshape((*batch, *shape_x, *shape_y))


def rows(x: Array, batch: Sequence[int], summed: Sequence[int]) -> tuple[Array, tuple[int, ...]]:
    """Matrices with the summed axes in the columns, and the shape of the rows."""
    free = [axis for axis in range(x.ndim) if axis not in (*batch, *summed)]
    shape = tuple(x.shape[axis] for axis in free)
    ordered = x.transpose(*batch, *free, *summed)
    count, columns = (math.prod(x.shape[axis] for axis in axes) for axes in (batch, summed))
    return ordered.reshape(count, math.prod(shape), columns), shape


def pool(equation: Any, x: Array) -> Array:
    params = equation.params
    pairs = zip(params["padding"], params["base_dilation"], strict=True)
    x = padded(summable(x), 0, [(low, high, dilation - 1) for (low, high), dilation in pairs])
    sizes = params["window_dimensions"]
    views = windows(x, sizes, params["window_strides"], params["window_dilation"])
    return views.sum(tuple(range(-len(sizes), 0)))


def summable(x: Array) -> Array:
    return x.astype(np.float32) if x.dtype in (ml_dtypes.bfloat16, np.float16) else x


def reduction(reduce: Any) -> Operation:
    return lambda equation, x: reduce(summable(x), axis=tuple(equation.params["axes"]))


def cumulative_sum(equation: Any, x: Array) -> Array:
    axis, reverse = equation.params["axis"], equation.params["reverse"]
    flip = (lambda x: np.flip(x, axis)) if reverse else (lambda x: x)
    return flip(np.cumsum(flip(summable(x)), axis))


def broadcast(equation: Any, x: Array) -> Array:
    shape, kept = equation.outvars[0].aval.shape, equation.params["broadcast_dimensions"]
    thin = [1] * len(shape)
    for axis, n in zip(kept, x.shape, strict=True):
        thin[axis] = n
    return np.broadcast_to(x.reshape(thin), shape)


def reshaped(equation: Any, x: Array) -> Array:
    """`lax.reshape`: it may order the axes first."""
    order = equation.params.get("dimensions")
    return (x if order is None else x.transpose(order)).reshape(equation.outvars[0].aval.shape)


def place(equation: Any, x: Array, starts: Sequence[Any], sizes: Sequence[int]) -> Any:
    """The part of `x` at a dynamic start, which is moved so that the part lies inside."""
    triples = zip(starts, sizes, x.shape, strict=True)
    first = [min(max(int(start), 0), n - size) for start, size, n in triples]
    return tuple(slice(low, low + size) for low, size in zip(first, sizes, strict=True))


def updated(equation: Any, x: Array, part: Array, *starts: Any) -> Array:
    x = x.copy()
    x[place(equation, x, starts, part.shape)] = part
    return x


def sliced(equation: Any, x: Array) -> Array:
    params = equation.params
    steps = params["strides"] or (1,) * x.ndim
    ends = zip(params["start_indices"], params["limit_indices"], steps, strict=True)
    return x[tuple(slice(*end) for end in ends)]


def parts(equation: Any, x: Array) -> list[Array]:
    ends = np.cumsum(equation.params["sizes"])[:-1]
    return np.split(x, ends, equation.params["axis"])


def iota(equation: Any, *_: Any) -> Array:
    shape, axis = equation.params["shape"], equation.params["dimension"]
    thin = [n if place == axis else 1 for place, n in enumerate(shape)]
    return np.broadcast_to(np.arange(shape[axis]).reshape(thin), shape)


def chosen(equation: Any, which: Array, *cases: Array) -> Array:
    return np.select([which == number for number in range(len(cases))], cases)


def recast(equation: Any, x: Array) -> Array | None:
    kind = np.dtype(equation.params["new_dtype"])
    return x.view(kind) if kind.itemsize == x.itemsize else None


def plain(function: Any) -> Operation:
    return lambda equation, *operands: function(*operands)


ELEMENTWISE = {
    "add": np.add, "add_any": np.add, "sub": np.subtract, "mul": np.multiply, "neg": np.negative,
    "max": np.maximum, "min": np.minimum, "abs": np.abs, "sign": np.sign, "square": np.square,
    "exp": np.exp, "log": np.log, "log1p": np.log1p, "expm1": np.expm1, "tanh": np.tanh,
    "shift_left": np.left_shift, "xor": np.bitwise_xor,
    "erf_inv": special.erfinv, "nextafter": np.nextafter, "stop_gradient": np.asarray,
    "sin": np.sin, "cos": np.cos, "sqrt": np.sqrt, "rsqrt": lambda x: 1 / np.sqrt(x),
    "logistic": lambda x: 1 / (1 + np.exp(-x)), "pow": np.power, "floor": np.floor,
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal,
    "gt": np.greater, "ge": np.greater_equal, "and": np.bitwise_and, "or": np.bitwise_or,
    "not": np.invert, "is_finite": np.isfinite, "erf": special.erf,
    "clamp": lambda low, x, high: np.clip(x, low, high),
    "copy": np.asarray, "copy_p": np.asarray, "convert_element_type": np.asarray,
}  # fmt: skip
OPERATIONS: dict[str, Operation] = {
    **{name: plain(function) for name, function in ELEMENTWISE.items()},
    "integer_pow": lambda e, x: x ** x.dtype.type(e.params["y"]),
    "select_n": chosen,
    "bitcast_convert_type": recast,
    "conv_general_dilated": convolve,
    "dot_general": dot,
    "reduce_window_sum": pool,
    "reduce_sum": reduction(np.sum),
    "reduce_max": reduction(np.max),
    "reduce_min": reduction(np.min),
    "reduce_and": reduction(np.all),
    "reduce_or": reduction(np.any),
    "cumsum": cumulative_sum,
    "broadcast_in_dim": broadcast,
    "reshape": reshaped,
    "squeeze": lambda e, x: x.reshape(e.outvars[0].aval.shape),
    "transpose": lambda e, x: x.transpose(e.params["permutation"]),
    "rev": lambda e, x: np.flip(x, e.params["dimensions"]),
    "concatenate": lambda e, *xs: np.concatenate(xs, e.params["dimension"]),
    "pad": lambda e, x, value: padded(x, value, e.params["padding_config"]),
    "slice": sliced,
    "split": parts,
    "dynamic_slice": lambda e, x, *s: x[place(e, x, s, e.params["slice_sizes"])],
    "dynamic_update_slice": updated,
    "iota": iota,
}


def logical_shift(equation: Any, x: Array, bits: Array) -> Array | None:
    """Of numbers without sign; those with a sign NumPy shifts in another way."""
    return x >> bits if x.dtype.kind == "u" else None


def divide(equation: Any, x: Array, y: Array) -> Array | None:
    """Quotients of floats; integers are divided in another way than NumPy's."""
    return x / y if x.dtype.kind not in "iub" else None


OPERATIONS |= {"div": divide, "shift_right_logical": logical_shift}
