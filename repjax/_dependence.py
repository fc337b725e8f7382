"""What the outputs of a program depend on: its arrays, those that reach them, other inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from repjax import jaxprs
from repjax.leaves import Leaves


def arrays_only(
    apply: Callable[..., Any], variables: Any, inputs: Any
) -> tuple[Callable[[list[Any]], Any], list[Any], int]:
    """A call that takes only the arrays, these arrays, and how many are variables.

    What has a shape and a type is an array. Everything else (functions, flags, numbers,
    names: the static parts of an Equinox module) is handed to the call as it is.
    """
    leaves = Leaves((variables, *inputs), _is_array)

    def call(arrays: list[Any]) -> Any:
        return apply(*leaves.rebuild(arrays))

    return call, leaves.arrays, len(Leaves(variables, _is_array).arrays)


def _is_array(leaf: Any) -> bool:
    return hasattr(leaf, "shape") and hasattr(leaf, "dtype")


def nudged(values: list[Any], variables: int) -> list[Any]:
    """The same values with other inputs: floats a little off, integers in reverse order.

    Without any input that can be moved, the variables are.
    """
    signs = np.random.default_rng(0)

    def move(value: Any) -> Any:
        if is_float(value):
            return value * (1 + 2.0**-6 * signs.choice([-1.0, 1.0], size=np.shape(value)))
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            return value
        return np.asarray(value).reshape(-1)[::-1].reshape(np.shape(value))

    inputs = [move(value) for value in values[variables:]]
    still = all(
        np.array_equal(comparable(one), comparable(two))
        for one, two in zip(inputs, values[variables:], strict=True)
    )
    return [move(v) if still else v for v in values[:variables]] + inputs


class Reach(NamedTuple):
    """What a value depends on.

    Args:
        inputs: positions of the inputs that it depends on.
        types: dtypes of the values on the way to it.
    """

    inputs: frozenset[int]
    types: frozenset[Any]


def reached(program: Any) -> Reach:
    """The inputs that the outputs of a program depend on, and the types on the way."""

    def step(equation: Any, operands: list[Any], scope: str) -> list[Reach]:
        known = [operand for operand in operands if isinstance(operand, Reach)]
        inside = [
            atom.aval
            for body in jaxprs.programs_in(equation)
            for inner in jaxprs.equations(body)
            for atom in inner.outvars
        ]
        types = frozenset(aval.dtype for aval in inside if hasattr(aval, "dtype"))
        before = Reach(
            frozenset().union(*(value.inputs for value in known)),
            types.union(*(value.types for value in known)),
        )
        return [before._replace(types=before.types | {v.aval.dtype}) for v in equation.outvars]

    inputs = jaxprs.body_of(program).inputs
    values = [Reach(frozenset({n}), frozenset({v.aval.dtype})) for n, v in enumerate(inputs)]
    outputs = jaxprs.interpret(program, values, step, keep=lambda _: False)
    known = [value for value in outputs if isinstance(value, Reach)]
    return Reach(
        frozenset().union(*(value.inputs for value in known)),
        frozenset().union(*(value.types for value in known)),
    )


def coarsest(kinds: Iterable[Any]) -> tuple[str, float]:
    """Name and unit roundoff of the floating type among these that rounds most."""
    floats = {np.dtype(kind) for kind in kinds if is_float_type(kind)}
    found = {kind.name: float(jnp.finfo(kind).eps) / 2 for kind in floats}  # type: ignore[no-untyped-call]
    return max((found or {"float64": 2.0**-53}).items(), key=lambda item: item[1])


def is_float_type(value: Any) -> bool:
    """Whether a value is a floating type."""
    return isinstance(value, np.dtype | type) and jnp.issubdtype(value, jnp.floating)


def comparable(value: Any) -> np.ndarray[Any, Any]:
    """An array that NumPy compares, PRNG keys by their data."""
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    return np.asarray(value)


def is_float(value: Any) -> bool:
    """Whether a value is a floating number or an array of them."""
    kind = value.dtype if hasattr(value, "dtype") else jnp.result_type(value)
    return bool(jnp.issubdtype(kind, jnp.floating))
