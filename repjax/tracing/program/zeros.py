"""Is this weight zero whatever the variables are?

A bias that meets zero padding is harmless if it is identically zero, as when a padding value
is subtracted before and added after. Only a sum can cancel. Equal terms of opposite sign
cancel by themselves and constants are added exactly; what is left of a sum is zero if at two
independent random complex points it is below 1e-13 of the sum of its terms' magnitudes. What is not
analytic counts as one more free variable, so that a miss only loses a merge.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from repjax import primitives
from repjax.tracing.program.weights import Weight, constant_value, is_float

_TOLERANCE = 1e-13
_POINTS = (1, 2)

_SUMS = frozenset({"add", "add_any", "sub"})
_SAME_NUMBERS = frozenset(
    {"reshape", "broadcast_in_dim", "squeeze", "transpose", "convert_element_type"}
)


class _Sized(NamedTuple):
    """A value, and the sum of the magnitudes of the terms it was added up from."""

    value: Any
    size: Any

    def map(self, run: Callable[[Any], Any]) -> _Sized:
        return _Sized(run(self.value), run(self.size))


@functools.lru_cache(maxsize=4096)
def is_zero(weight: Weight) -> bool:
    """Whether a float weight is zero for all variables (False: it may be something else)."""
    constant = constant_value(weight)
    if constant is not None:
        return constant.dtype.kind in "fiub" and not np.any(constant)
    if not is_float(weight.dtype) or not _may_vanish(weight):
        return False
    if weight.name == "div" or weight.name in _SAME_NUMBERS or weight.name in _READ_FIRST:
        return is_zero(weight.operands[0])
    if weight.name == "mul":
        return any(is_zero(operand) for operand in weight.operands)
    if weight.name == "neg":
        return is_zero(weight.operands[0])
    return _sum_is_zero(weight)


def _sum_is_zero(weight: Weight) -> bool:
    counts: collections.Counter[Weight] = collections.Counter()
    _count_terms(weight, 1, counts)
    left = {term: count for term, count in counts.items() if count}
    constants = {one: value for one in left if (value := constant_value(one)) is not None}
    if constants and not _constants_cancel(left, constants):
        return False
    rest = {term: count for term, count in left.items() if term not in constants}
    return not rest or all(_vanishes_at(rest, point) for point in _POINTS)


def _count_terms(weight: Weight, sign: int, counts: collections.Counter[Weight]) -> None:
    """Flatten sums, differences and negatives into signed terms."""
    if weight.name == "neg":
        _count_terms(weight.operands[0], -sign, counts)
    elif weight.name in _SUMS:
        first, second = weight.operands
        _count_terms(first, sign, counts)
        _count_terms(second, -sign if weight.name == "sub" else sign, counts)
    else:
        counts[weight] += sign


def _constants_cancel(counts: dict[Weight, int], constants: dict[Weight, np.ndarray]) -> bool:
    arrays = [(counts[one], value) for one, value in constants.items()]
    if not all(np.all(np.isfinite(value)) for _, value in arrays):
        return False
    shape = np.broadcast_shapes(*(value.shape for _, value in arrays))
    columns = [np.broadcast_to(value, shape).ravel().tolist() for _, value in arrays]
    factors = [count for count, _ in arrays]
    return all(
        sum(count * Fraction(number) for count, number in zip(factors, numbers, strict=True)) == 0
        for numbers in set(zip(*columns, strict=True))
    )


def _vanishes_at(terms: dict[Weight, int], point: int) -> bool:
    values: dict[Weight, _Sized] = {}
    try:
        for part in sorted(_parts(terms), key=lambda part: part.number):
            values[part] = _value(part, values, point)
        total = sum(count * values[term].value for term, count in terms.items())
        size = sum(abs(count) * values[term].size for term, count in terms.items())
    except (TypeError, ValueError):  # sizes that are not numbers
        return False
    return bool(np.all(np.isfinite(total)) and np.all(np.abs(total) <= _TOLERANCE * size))


def _parts(terms: dict[Weight, int]) -> set[Weight]:
    found: set[Weight] = set()
    stack = list(terms)
    while stack:
        part = stack.pop()
        if part not in found:
            found.add(part)
            stack.extend(_looked_into(part))
    return found


_READ_FIRST = frozenset({"vector", "through"})
"""Weights made of their first operand by linear functions of our own."""


def _looked_into(weight: Weight) -> tuple[Weight, ...]:
    if weight.name == "vector":
        return weight.operands
    known = is_float(weight.dtype) and all(is_float(one.dtype) for one in weight.operands)
    analytic = primitives.look_up(weight.name).analytic
    return weight.operands if known and analytic else ()


def _may_vanish(weight: Weight) -> bool:
    """Only a sum can cancel; the rest vanishes with what it is made of."""
    if constant_value(weight) is not None:
        return not np.any(constant_value(weight))
    if weight.name in _SUMS:
        return True
    if weight.name in _SAME_NUMBERS | _READ_FIRST | {"neg", "div"}:
        return _may_vanish(weight.operands[0])
    return weight.name == "mul" and any(_may_vanish(operand) for operand in weight.operands)


def _value(weight: Weight, values: dict[Weight, _Sized], point: int) -> _Sized:
    shape = weight.shape or ()
    constant = constant_value(weight)
    operands = [values[operand] for operand in _looked_into(weight)]
    if constant is not None and constant.dtype.kind == "f":
        wide = constant.astype(np.float64)
        return _Sized(wide, np.abs(wide))
    if not operands:
        free = _free_variable(weight.number, shape, point)
        return _Sized(free, np.abs(free))
    params = {} if weight.equation is None else weight.equation.params
    if weight.name == "vector":
        index, features = weight.value
        return operands[0].map(lambda a: np.broadcast_to(a[index].reshape(-1), (features,)))
    if weight.name in _SAME_NUMBERS:
        return operands[0].map(lambda a: _rearranged(weight.name, params, a))
    one, *others = operands
    if weight.name in _SUMS:
        (two,) = others
        sign = -1 if weight.name == "sub" else 1
        return _Sized(one.value + sign * two.value, one.size + two.size)
    if weight.name == "neg":
        return _Sized(-one.value, one.size)
    if weight.name == "mul":
        (two,) = others
        return _Sized(one.value * two.value, one.size * two.size)
    if weight.name == "div":
        (two,) = others
        return _Sized(one.value / two.value, one.size / np.abs(two.value))
    found = _FUNCTIONS[weight.name](params, one.value)
    return _Sized(found, np.abs(found))


def _free_variable(number: int, shape: tuple[int, ...], point: int) -> Any:
    """Random complex numbers, at the second point with the other sign of the real part.

    Off the real line a root of a square is no more the number itself.
    """
    random = np.random.default_rng([number, 0])
    sign = np.where(random.uniform(size=shape) < 0.5, -1.0, 1.0) * (1 if point == 1 else -1)
    random = np.random.default_rng([number, point])
    real, imaginary = random.uniform(0.5, 1.5, shape), random.uniform(-1.0, 1.0, shape)
    return sign * real + 1j * imaginary


_FUNCTIONS: dict[str, Callable[[dict[str, Any], Any], Any]] = {
    "sqrt": lambda params, a: np.sqrt(a),
    "rsqrt": lambda params, a: 1 / np.sqrt(a),
    "exp": lambda params, a: np.exp(a),
    "log": lambda params, a: np.log(a),
    "square": lambda params, a: a * a,
    "integer_pow": lambda params, a: a ** params["y"],
}


def _rearranged(name: str, params: dict[str, Any], x: Any) -> Any:
    if name == "reshape":
        return x.reshape(params["new_sizes"])
    if name == "squeeze":
        return np.squeeze(x, tuple(params["dimensions"]))
    if name == "transpose":
        return np.transpose(x, params["permutation"])
    if name == "convert_element_type":
        return x
    shape = [1] * len(params["shape"])
    for axis, size in zip(params["broadcast_dimensions"], x.shape, strict=True):
        shape[axis] = size
    return np.broadcast_to(x.reshape(shape), params["shape"])
