"""What a program has to do, counted in the program itself, whatever a compiler makes of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import repjax
from repjax.counting import trace
from repjax.jaxprs import Equation, body_of, call_body, programs_in


class Work(NamedTuple):
    """The work of a program.

    Args:
        convolutions: that it performs; products are not among them.
        flops: of its convolutions and products, two for each multiply-accumulate; borders of
            zeros count like data.
        bytes: that its convolutions and products read and write, each operand and result once.
    """

    convolutions: int
    flops: int
    bytes: int


def work(fn: Callable[..., Any], *args: Any) -> Work:
    """Count the work of ``fn(*args)``; nothing is computed.

    A scan counts as often as it turns, a while loop once, a ``cond`` by its dearest branch.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x = jax.ShapeDtypeStruct((4, 8), jnp.float32)
        >>> work(lambda x: x @ x.T, x)
        Work(convolutions=0, flops=256, bytes=320)
    """
    flops, moved = _count(trace(fn, *args))
    return Work(repjax.count_operations(fn, *args)["conv_general_dilated"], flops, moved)


def _count(jaxpr: Any) -> tuple[int, int]:
    flops = moved = 0
    for equation in body_of(jaxpr).equations:
        more = _of_equation(equation)
        flops, moved = flops + more[0], moved + more[1]
    return flops, moved


def _of_equation(equation: Equation) -> tuple[int, int]:
    name = equation.primitive.name
    if name in ("conv_general_dilated", "dot_general"):
        arrays = [atom.aval for atom in (*equation.invars, *equation.outvars)]
        moved = sum(array.size * array.dtype.itemsize for array in arrays)
        return int(2 * arrays[-1].size * _summed(equation)), moved
    inner = call_body(equation)
    bodies = [_count(one) for one in ([inner] if inner is not None else programs_in(equation))]
    if name == "cond":
        return max(bodies, default=(0, 0))
    times = equation.params["length"] if name == "scan" else 1
    return times * sum(one[0] for one in bodies), times * sum(one[1] for one in bodies)


def _summed(equation: Equation) -> float:
    """How many products are summed for one element of the result."""
    left, right = (atom.aval.shape for atom in equation.invars)
    params = equation.params
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        return float(math.prod(left[axis] for axis in contracted))
    features: int = right[params["dimension_numbers"].rhs_spec[0]]
    return float(math.prod(right) / features / math.prod(params["lhs_dilation"]))
