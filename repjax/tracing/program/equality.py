"""When two equations mean the same, and may share one result.

Equal text is not enough: two calls may differ in a function that their text does not show.
Here every parameter counts, functions and other objects by identity, the programs inside a
parameter equation by equation. A miss costs a duplicate; a wrong hit is a wrong network.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from repjax import jaxprs


class Identity:
    """An object that equals nothing but itself; held, so that its address stays its own."""

    __slots__ = ("held",)

    def __init__(self, held: Any) -> None:
        self.held = held

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and self.held is other.held

    def __hash__(self) -> int:
        return id(self.held)

    def __repr__(self) -> str:
        return f"object {id(self.held)}"


def meaning(equation: jaxprs.Equation) -> Hashable:
    """The primitive and all its parameters: equal only where two equations do the same.

    Example:
        >>> import jax.numpy as jnp
        >>> one, two = jax.make_jaxpr(lambda x: (jnp.sin(x), jnp.sin(x)))(1.0).eqns
        >>> meaning(one) == meaning(two)
        True
    """
    params = sorted(equation.params.items())
    return (equation.primitive.name, *((name, _hashable(value)) for name, value in params))


def value_meaning(equation: jaxprs.Equation) -> Hashable:
    """Like `meaning`, of the values alone: a derivative of its own does not count.

    This is what two traces of one program agree in, where JAX makes the functions that
    compute derivatives anew.
    """
    if jaxprs.is_custom_derivative(equation):
        return (equation.primitive.name, _hashable(jaxprs.call_body(equation), values_only=True))
    params = sorted(equation.params.items())
    return (equation.primitive.name, *((n, _hashable(v, values_only=True)) for n, v in params))


def constant_meaning(value: Any) -> Hashable:
    """Type, shape and bits of a constant; a traced or extended value is itself alone."""
    if isinstance(value, jax.core.Tracer):
        return Identity(value)
    aval = jax.typeof(value)
    if jnp.issubdtype(aval.dtype, jax.dtypes.extended):
        return Identity(value)
    digest = hashlib.sha256(np.asarray(value).tobytes()).hexdigest()
    return ("array", str(aval.dtype), tuple(aval.shape), digest)


def _hashable(value: Any, *, values_only: bool = False) -> Hashable:
    if hasattr(value, "eqns"):
        return _program(value, values_only)
    if isinstance(value, tuple | list):
        parts = tuple(_hashable(part, values_only=values_only) for part in value)
        return (type(value).__name__, *parts)
    if isinstance(value, dict):
        items = [
            (str(key), _hashable(part, values_only=values_only)) for key, part in value.items()
        ]
        return ("dict", *sorted(items, key=lambda item: item[0]))
    if isinstance(value, np.integer):
        return ("int", int(value))
    if isinstance(value, np.ndarray | np.generic):
        return constant_meaning(value)
    if isinstance(value, float):
        return ("float", value.hex())
    if isinstance(value, int | str | bytes | type | np.dtype) or value is None:
        return (type(value).__name__, value)
    if callable(value) or not _has_own_equality(value):
        return Identity(value)
    return (type(value).__name__, value)


def _has_own_equality(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    own: Any = type(value).__eq__
    return own is not object.__eq__


def _program(jaxpr: jaxprs.Jaxpr, values_only: bool) -> Hashable:
    """A jaxpr, its variables numbered in the order in which they occur."""
    body = jaxprs.body_of(jaxpr)
    numbers: dict[Any, int] = {}

    def atom(one: jaxprs.Atom) -> Hashable:
        if jaxprs.is_literal(one):
            return constant_meaning(one.val)
        return numbers.setdefault(one, len(numbers))

    def variables(some: Any) -> Hashable:
        return tuple((atom(one), str(one.aval)) for one in some)

    of_equation = value_meaning if values_only else meaning
    return (
        "program",
        tuple((atom(one), constant_meaning(value)) for one, value in body.constants),
        variables(body.inputs),
        tuple(
            (of_equation(one), tuple(map(atom, one.invars)), variables(one.outvars))
            for one in body.equations
        ),
        tuple(map(atom, body.outputs)),
    )
