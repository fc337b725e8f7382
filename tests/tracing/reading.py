"""What a program does with its data, read off its jaxpr without help from the library."""

from __future__ import annotations

import dataclasses
import math

import jax
from jax.extend import core

from tests.evaluate import Program

CONSTANT, WEIGHT, DATA = range(3)


@dataclasses.dataclass
class Work:
    """Numbers of operations between data and weights.

    Attributes:
        macs: multiply-accumulates of convolutions, dots and pools.
        products: products and quotients of data with a weight or a constant vector.
        scalars: the same with a constant scalar.
        shifts: sums and differences of data with a weight or a constant vector.
        outputs: shapes of what convolutions and dots of data give, in order.
    """

    macs: float = 0
    products: int = 0
    scalars: int = 0
    shifts: int = 0
    outputs: list = dataclasses.field(default_factory=list)


def work(fn, variables, *inputs):
    """Read ``fn(variables, *inputs)``; calls are entered, a loop counts as one turn."""
    return work_in(Program(fn, variables, *inputs), variables)


def work_in(program, variables):
    """The same of a program that is traced already."""
    count = sum(hasattr(leaf, "dtype") for leaf in jax.tree.leaves(variables))
    found = Work()
    kinds = [WEIGHT if place < count else DATA for place in range(len(program.jaxpr.in_avals))]
    _walk(program.jaxpr, kinds, found)
    return found


def _walk(jaxpr, kinds, found):
    inner = getattr(jaxpr, "jaxpr", jaxpr)
    known = dict.fromkeys(inner.constvars, CONSTANT)
    known.update(zip(inner.invars, kinds, strict=True))

    def kind(atom):
        return CONSTANT if isinstance(atom, core.Literal) else known[atom]

    for equation in inner.eqns:
        operands = [kind(atom) for atom in equation.invars]
        _count(equation, operands, found)
        results = None
        for body in core.jaxprs_in_params(equation.params):
            count = len(getattr(body, "jaxpr", body).invars)
            passed = operands[len(operands) - count :] if count <= len(operands) else None
            results = _walk(body, passed or [max(operands, default=CONSTANT)] * count, found)
        if results is None or len(results) != len(equation.outvars):
            results = [max(operands, default=CONSTANT)] * len(equation.outvars)
        known.update(zip(equation.outvars, results, strict=True))
    return [kind(atom) for atom in inner.outvars]


def _count(equation, operands, found):
    name, result = equation.primitive.name, equation.outvars
    if name in {"mul", "div", "add", "sub", "add_any"} and sorted(operands)[-1] == DATA:
        other = equation.invars[operands.index(min(operands))]
        vector = min(operands) == WEIGHT or math.prod(other.aval.shape) > 1
        if min(operands) == DATA:
            pass
        elif name not in {"mul", "div"}:
            found.shifts += vector
        elif vector:
            found.products += 1
        else:
            found.scalars += 1
    if DATA not in operands:
        return
    if name in {"conv_general_dilated", "dot_general"}:
        found.outputs.append(result[0].aval.shape)
    if not all(isinstance(size, int) for atom in equation.invars for size in atom.aval.shape):
        return
    size = math.prod(result[0].aval.shape) if result else 0
    params = equation.params
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        taps = math.prod(kernel) // kernel[params["dimension_numbers"].rhs_spec[0]]
        found.macs += size * taps / math.prod(params["lhs_dilation"])
    elif name == "dot_general":
        ((contracted, _), _) = params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        found.macs += size * math.prod(shape[axis] for axis in contracted)
    elif name == "reduce_window_sum":
        found.macs += size * math.prod(params["window_dimensions"])
