"""Weights: what depends on variables and constants only, as a graph of its own.

A weight is a node: an operation on other weights. Weights of the same meaning are the same
node, so that a value is computed and stored once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from repjax import jaxprs
from repjax.algebra.dtypes import common_dtype
from repjax.tracing.program.equality import constant_meaning, meaning, value_meaning


class Weight:
    """One weight: an operation on other weights.

    Args:
        name: of the operation ("variable", "constant", a primitive, ...).
        operands: weights it is computed from.
        shape: of the value as traced.
        dtype: of the value as traced.
        variables: indices of the variables it depends on; empty for a constant.
        kernels: those of them that enter as a kernel, not only as a vector.
        sized: whether it depends on a symbolic size, which is known when the program runs.
        number: its place in the order of evaluation.
        equation: of the program, where it is one.
        value: the constant, the index of the variable, or (index, features) of a "vector".
    """

    __slots__ = (
        *("dtype", "equation", "kernels", "name", "number", "operands", "run"),
        *("shape", "sized", "static", "value", "variables", "_constant"),
    )

    name: str
    number: int
    operands: tuple[Weight, ...]
    run: Callable[..., Any]
    static: Hashable
    shape: tuple[int, ...] | None
    dtype: Any
    variables: frozenset[int]
    kernels: frozenset[int]
    sized: bool
    equation: Any
    value: Any
    _constant: Any

    def __repr__(self) -> str:
        return f"{self.name}{self.shape}#{self.number}"


class Weights:
    """All the weights of one program, each meaning once."""

    def __init__(self) -> None:
        self._known: dict[Hashable, Weight] = {}

    def node(
        self,
        name: str,
        operands: Sequence[Weight] = (),
        run: Callable[..., Any] | None = None,
        *,
        static: Hashable = (),
        shape: tuple[int, ...] | None = None,
        dtype: Any = None,
        variable: int | None = None,
        kernel: bool = False,
        equation: Any = None,
        value: Any = None,
    ) -> Weight:
        """The weight of an operation; `static` is what tells it from others of that name."""
        key = (name, static, *(operand.number for operand in operands))
        if key in self._known:
            return self._known[key]
        weight = Weight()
        weight.name, weight.static, weight.operands = name, static, tuple(operands)
        weight.number = len(self._known)
        weight.run = run if run is not None else lambda: value
        weight.shape, weight.dtype, weight.equation, weight.value = shape, dtype, equation, value
        weight._constant = ...
        own = frozenset() if variable is None else frozenset({variable})
        weight.variables = own.union(*(operand.variables for operand in operands))
        weight.kernels = frozenset().union(*(operand.kernels for operand in operands))
        if kernel:
            weight.kernels = weight.kernels | weight.variables
        symbolic = not all(isinstance(size, int) for size in shape or ())
        own_size = symbolic or name == "dim_as_value"
        weight.sized = own_size or any(operand.sized for operand in operands)
        self._known[key] = weight
        return weight

    def variable(self, index: int, shape: tuple[int, ...], dtype: Any) -> Weight:
        """A variable, by its position among the flat ones."""
        return self.node(
            "variable", static=index, shape=shape, dtype=dtype, variable=index, value=index
        )

    def constant(self, value: Any) -> Weight:
        """A value known while tracing."""
        aval = jax.typeof(value)
        static = constant_meaning(value)
        return self.node("constant", static=static, shape=aval.shape, dtype=aval.dtype, value=value)

    def of_equation(self, equation: jaxprs.Equation, operands: Sequence[Weight]) -> list[Weight]:
        """The results of an equation whose operands are all weights."""
        name, static = jaxprs.name_of(equation), meaning(equation)
        avals = [atom.aval for atom in equation.outvars]

        def run(*values: Any) -> list[Any]:
            return _bind_wide(equation, values)

        if not equation.primitive.multiple_results:
            return [
                self.node(
                    *(name, operands, lambda *values: run(*values)[0]),
                    static=static,
                    shape=_shape(avals[0]),
                    dtype=_dtype(avals[0]),
                    equation=equation,
                )
            ]
        whole = self.node(name, operands, run, static=static, equation=equation)
        return [
            self.node(
                *("part", [whole], lambda results, index=index: results[index]),
                static=index,
                shape=_shape(aval),
                dtype=_dtype(aval),
            )
            for index, aval in enumerate(avals)
        ]


def evaluate(weights: Iterable[Weight], variables: Mapping[int, Any] | Sequence[Any]) -> Any:
    """Values of the weights (and of all they need), by weight, for these variables."""
    values: dict[Weight, Any] = {}
    for weight in sorted(reachable(weights), key=lambda weight: weight.number):
        if weight.name == "variable":
            values[weight] = variables[weight.value]
        else:
            values[weight] = weight.run(*(values[operand] for operand in weight.operands))
    return values


def reachable(weights: Iterable[Weight]) -> set[Weight]:
    """The weights and everything they are computed from."""
    found: set[Weight] = set()
    stack = list(weights)
    while stack:
        weight = stack.pop()
        if weight not in found:
            found.add(weight)
            stack.extend(weight.operands)
    return found


def constant_value(weight: Weight) -> np.ndarray | None:
    """The value of a weight that depends on no variable; None for any other, or a traced one."""
    if weight._constant is ...:
        weight._constant = _constant_value(weight)
    known: np.ndarray | None = weight._constant
    return known


def _constant_value(weight: Weight) -> np.ndarray | None:
    if weight.variables or weight.shape is None:
        return None
    if weight.name == "constant":
        traced = isinstance(weight.value, jax.core.Tracer)
        extended = jnp.issubdtype(weight.dtype, jax.dtypes.extended)
        return None if traced or extended else np.asarray(weight.value)
    needed = reachable([weight])
    traced = any(one.name == "constant" and constant_value(one) is None for one in needed)
    if weight.sized or traced:
        return None
    with jax.ensure_compile_time_eval():
        return np.asarray(evaluate([weight], ())[weight])


def signature(weight: Weight, known: dict[Weight, str]) -> str:
    """Text that is equal for two traces of a program iff the weight has the same value."""
    for one in sorted(reachable([weight]) - known.keys(), key=lambda one: one.number):
        static = one.static if one.equation is None else value_meaning(one.equation)
        words = [one.name, repr(static), *(known[operand] for operand in one.operands)]
        known[one] = hashlib.sha1("\n".join(words).encode()).hexdigest()
    return known[weight]


def is_float(dtype: Any) -> bool:
    """Whether a type counts as a real number here: floats of 16 bits and more.

    Narrower floats are quantization on purpose and are left alone.
    """
    if dtype is None or jnp.issubdtype(dtype, jax.dtypes.extended):
        return False
    return bool(jnp.issubdtype(dtype, jnp.floating)) and np.dtype(dtype).itemsize >= 2


_SAME_TYPE = frozenset({"add", "add_any", "sub", "mul", "div", "max", "min", "pow", "atan2"})


def _bind_wide(equation: jaxprs.Equation, values: Sequence[Any]) -> list[Any]:
    """Evaluate an equation, without narrowing floats: casts down are looked through."""
    name = jaxprs.name_of(equation)
    if name == "convert_element_type" and is_float(equation.params["new_dtype"]):
        value = jnp.asarray(values[0])
        if is_float(value.dtype):
            return [value.astype(common_dtype(value.dtype, equation.params["new_dtype"]))]
    if name in _SAME_TYPE and all(is_float(common_dtype(value)) for value in values):
        wide = common_dtype(*(jnp.asarray(value).dtype for value in values))
        return jaxprs.bind(equation, [jnp.asarray(value).astype(wide) for value in values])
    programs = any(hasattr(value, "eqns") for value in equation.params.values())
    if len(equation.invars) == 1 and not programs:
        return jaxprs.bind(equation, values)
    return bind_as_traced(equation, values)


def bind_as_traced(equation: jaxprs.Equation, values: Sequence[Any]) -> list[Any]:
    """Evaluate an equation in the types it was traced with."""
    pairs = zip(equation.invars, values, strict=True)
    return jaxprs.bind(equation, [as_traced(value, _dtype(atom.aval)) for atom, value in pairs])


def as_traced(value: Any, dtype: Any) -> Any:
    """A value in the type it was traced with, if that is a float type."""
    if not is_float(dtype) or common_dtype(value) == dtype:
        return value
    return jnp.asarray(value).astype(dtype)


def _shape(aval: Any) -> tuple[int, ...] | None:
    return getattr(aval, "shape", None)


def _dtype(aval: Any) -> Any:
    return getattr(aval, "dtype", None)
