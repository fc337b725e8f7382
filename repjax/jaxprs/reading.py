"""Reading JAX programs: the parts of a jaxpr, what its calls hold, where an equation came from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
from jax.extend import core, source_info_util

from repjax.primitives import HEAVY

Equation = Any
Atom = Any
Jaxpr = Any

_CALLS = frozenset(
    {
        *("jit", "pjit", "closed_call", "core_call", "eval_jaxpr", "xla_call"),
        *("remat", "remat2", "checkpoint"),
    }
)
_CUSTOM_DERIVATIVES = frozenset(
    {"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr", "custom_lin"}
)
_BODY = ("jaxpr", "call_jaxpr", "fun_jaxpr")


class Body(NamedTuple):
    """The parts of a jaxpr, closed or open, of every JAX version.

    Args:
        constants: variables of constants, with their values.
        inputs: variables of inputs.
        equations: in order.
        outputs: variables or literals.
    """

    constants: list[tuple[Atom, Any]]
    inputs: Sequence[Atom]
    equations: Sequence[Equation]
    outputs: Sequence[Atom]


def body_of(jaxpr: Jaxpr) -> Body:
    """Read a jaxpr: constants with their values (where it has them), inputs, equations, outputs."""
    values = getattr(jaxpr, "consts", ())
    inner: Any = getattr(jaxpr, "jaxpr", jaxpr)
    constants = list(zip(inner.constvars, values, strict=True)) if values else []
    return Body(constants, inner.invars, inner.eqns, inner.outvars)


def name_of(equation: Equation) -> str:
    """The name of its primitive, as "another <name>" where it is not JAX's of that name."""
    name = str(equation.primitive.name)
    known = getattr(jax.lax, f"{name}_p", equation.primitive)
    return name if known is equation.primitive else f"another {name}"


def is_literal(atom: Atom) -> bool:
    """Whether an operand is a constant written into the equation, with a field ``val``."""
    return isinstance(atom, core.Literal)


def is_custom_derivative(equation: Equation) -> bool:
    """Whether the equation is a call that brings its own derivative."""
    return equation.primitive.name in _CUSTOM_DERIVATIVES


def call_body(equation: Equation) -> Jaxpr | None:
    """The body of a call that runs once on the operands as they are, else None."""
    name = equation.primitive.name
    if name not in _CALLS and name not in _CUSTOM_DERIVATIVES:
        return None
    for key in _BODY:
        if key in equation.params:
            return equation.params[key]
    return None


def programs_in(equation: Equation) -> list[Jaxpr]:
    """The programs among the parameters of an equation: bodies of calls, loops and branches."""
    return list(core.jaxprs_in_params(equation.params))


def holds(jaxpr: Jaxpr, names: frozenset[str] = HEAVY) -> bool:
    """Whether an operation of one of these names occurs in a jaxpr, at any depth."""
    for equation in body_of(jaxpr).equations:
        if equation.primitive.name in names:
            return True
        if any(holds(inner, names) for inner in programs_in(equation)):
            return True
    return False


def equations(jaxpr: Jaxpr) -> Iterator[Equation]:
    """Every equation in order, calls inlined; loops are yielded, not entered."""
    for equation in body_of(jaxpr).equations:
        inner = call_body(equation)
        if inner is None:
            yield equation
        else:
            yield from equations(inner)


def operation_name(equation: Equation) -> str:
    """The name of an operation for reports: of a call, the name of its function."""
    if "name" in equation.params:
        return str(equation.params["name"])
    inner = call_body(equation)
    for part in () if inner is None else body_of(inner).equations[:1]:
        return operation_name(part)
    return str(equation.primitive.name)


def module_path(equation: Equation) -> str:
    """The named scopes around an equation, as in ``encoder/block0``; empty without any."""
    return str(equation.source_info.name_stack)


def source_line(equation: Equation) -> str:
    """The line of the user's program an equation came from."""
    return str(source_info_util.summarize(equation.source_info))
