"""Is this weight zero whatever the variables are? Decided at random points.

A bias that meets zero padding is harmless if it is identically zero, as when a padding
value is subtracted before and added after. An analytic expression that vanishes at random
variables vanishes everywhere. Whatever is not understood counts as one more free variable,
so that an answer of "zero" is always right and a miss only loses a merge.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from repjax.tracing.expressions import Node, is_float

_TOLERANCE = 1e-10

_SUMS = frozenset({"add", "add_any", "sub"})
_LINEAR = frozenset({"neg", "reshape", "broadcast_in_dim", "squeeze", "transpose", "slice"})


def _broadcast(x: np.ndarray, params: dict[str, Any]) -> np.ndarray:
    shape = [1] * len(params["shape"])
    for axis, size in zip(params["broadcast_dimensions"], x.shape, strict=True):
        shape[axis] = size
    return np.broadcast_to(x.reshape(shape), params["shape"])


_ANALYTIC: dict[str, Callable[..., Any]] = {
    "add": lambda params, a, b: a + b,
    "add_any": lambda params, a, b: a + b,
    "sub": lambda params, a, b: a - b,
    "mul": lambda params, a, b: a * b,
    "div": lambda params, a, b: a / b,
    "neg": lambda params, a: -a,
    "sqrt": lambda params, a: np.sqrt(a),
    "rsqrt": lambda params, a: 1 / np.sqrt(a),
    "exp": lambda params, a: np.exp(a),
    "log": lambda params, a: np.log(a),
    "square": lambda params, a: a * a,
    "integer_pow": lambda params, a: a ** params["y"],
    "reshape": lambda params, a: a.reshape(params["new_sizes"]),
    "squeeze": lambda params, a: np.squeeze(a, tuple(params["dimensions"])),
    "transpose": lambda params, a: np.transpose(a, params["permutation"]),
    "broadcast_in_dim": lambda params, a: _broadcast(a, params),
    "convert_element_type": lambda params, a: a,
}


def is_zero(node: Node) -> bool:
    """Whether a float expression is zero for all variables (False: it may be)."""
    if not _may_vanish(node):
        return False
    values: dict[Node, np.ndarray] = {}
    largest = 0.0
    try:
        for part in sorted(_analytic_parts(node), key=lambda part: part.number):
            values[part] = value = _value(part, values)
            largest = max(largest, float(np.max(np.abs(value), initial=0.0)))
    except (TypeError, ValueError):  # sizes that are not numbers
        return False
    value = values[node]
    return bool(np.all(np.isfinite(value)) and np.all(np.abs(value) <= _TOLERANCE * largest))


def _analytic_parts(node: Node) -> set[Node]:
    found: set[Node] = set()
    stack = [node]
    while stack:
        part = stack.pop()
        if part not in found:
            found.add(part)
            stack.extend(_looked_into(part))
    return found


def _looked_into(node: Node) -> tuple[Node, ...]:
    if node.name in {"vector", "through"}:
        return node.operands[:1]
    known = is_float(node.dtype) and all(_is_number(part) for part in node.operands)
    return node.operands if node.name in _ANALYTIC and known else ()


def _is_number(node: Node) -> bool:
    if node.name == "constant" and not isinstance(node.value, jax.core.Tracer):
        return bool(jnp.issubdtype(node.dtype, jnp.number))
    return node.shape is not None and is_float(node.dtype)


def _may_vanish(node: Node) -> bool:
    """Only a sum can cancel; the rest vanishes with what it is made of."""
    if node.name == "constant":
        return _is_number(node) and not np.any(np.asarray(node.value))
    if node.name in _SUMS:
        return True
    if node.name in _LINEAR or node.name in {"convert_element_type", "div", "vector", "through"}:
        return _may_vanish(node.operands[0])
    if node.name == "mul":
        return any(_may_vanish(operand) for operand in node.operands)
    return False


def _value(node: Node, values: dict[Node, np.ndarray]) -> np.ndarray:
    shape = node.shape or ()
    operands = [values[operand] for operand in _looked_into(node)]
    if node.name == "constant" and _is_number(node):
        return np.asarray(node.value).astype(np.float64)
    if node.name == "vector":
        return np.broadcast_to(operands[0][node.value].reshape(-1), shape)
    if node.name == "through" and not operands[0].any():
        return np.zeros(shape)
    if node.name in _ANALYTIC and operands:
        params = {} if node.equation is None else node.equation.params
        return np.asarray(_ANALYTIC[node.name](params, *operands))
    return np.random.default_rng(zlib.crc32(node.key.encode())).uniform(0.5, 1.5, shape)
