"""Reading JAX programs: what depends on how a version of JAX represents traced functions.

Everything that differs between JAX versions is here: where the variables and constants of
a jaxpr are, what calls are named, how a scan says which operands it carries. The rest of
the library sees equations (``primitive``, ``params``, ``invars``, ``outvars``) and values.
What each primitive is stands in `repjax.primitives`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
from jax.extend import core, source_info_util

from repjax.primitives import HEAVY

Equation = Any
Atom = Any
Jaxpr = Any
Step = Callable[[Equation, list[Any], str], Sequence[Any]]

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


def bind(equation: Equation, values: Sequence[Any]) -> list[Any]:
    """Evaluate one equation as written, on values of the shapes it was traced with."""
    params = equation.primitive.get_bind_params(equation.params)
    result = equation.primitive.bind(*values, **params)
    return list(result) if equation.primitive.multiple_results else [result]


def keep_custom_derivatives(equation: Equation) -> bool:
    """Keep a call with its own derivative, unless it holds a convolution, dot or pool."""
    return is_custom_derivative(equation) and not holds(call_body(equation))


def run_step(equation: Equation, values: list[Any], scope: str) -> list[Any]:
    """The step of `interpret` that runs every equation as written."""
    return bind(equation, values)


def interpret(
    jaxpr: Jaxpr,
    values: Sequence[Any],
    step: Step = run_step,
    *,
    keep: Callable[[Equation], bool] = keep_custom_derivatives,
    scope: str = "",
) -> list[Any]:
    """Run a program, calls inlined, with `step` in the place of every equation.

    Args:
        jaxpr: what ``jax.make_jaxpr`` returns, or the body of an equation.
        values: one value of any kind per input, flat.
        step: from an equation, its operand values and its named scopes to its output values;
            `run_step` runs it as written. Loops (scan, while, cond) are handed to it too:
            `bind_loop` runs them with interpreted bodies.
        keep: which calls are handed to `step` whole. By default those with a derivative of
            their own that hold no convolution, dot or pool: opened, a relu would have
            another derivative at 0.
        scope: the named scopes around the whole program, as in ``encoder/block0``.

    Example:
        >>> import jax.numpy as jnp
        >>> def quiet(equation, values, scope):
        ...     if equation.primitive.name == "sin":
        ...         return values
        ...     return bind(equation, values)
        >>> program = jax.make_jaxpr(jax.jit(lambda x: 2.0 * jnp.sin(x)))(1.0)
        >>> float(interpret(program, [3.0], quiet)[0])
        6.0
    """
    body = body_of(jaxpr)
    known: dict[Atom, Any] = dict(body.constants)
    known.update(zip(body.inputs, values, strict=True))

    def read(atom: Atom) -> Any:
        return atom.val if is_literal(atom) else known[atom]

    for equation in body.equations:
        operands = [read(atom) for atom in equation.invars]
        inner, place = call_body(equation), _joined(scope, module_path(equation))
        if inner is None or keep(equation):
            results = step(equation, operands, place)
        else:
            results = interpret(inner, operands, step, keep=keep, scope=place)
        known.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in body.outputs]


def _joined(scope: str, inner: str) -> str:
    """The scopes of an equation of a call; JAX gives them whole, or from the call inwards."""
    if not scope or inner == scope or inner.startswith(f"{scope}/"):
        return inner
    return f"{scope}/{inner}" if inner else scope


@dataclasses.dataclass(frozen=True)
class Scan:
    """A scan: operands are constants, then carries, then values sliced along axis 0.

    Args:
        body: one step.
        constants: number of constants.
        carries: number of carries.
        length: number of steps.
        reverse: whether it runs from the last slice to the first.
        unroll: steps per turn of the loop.
    """

    body: Jaxpr
    constants: int
    carries: int
    length: int
    reverse: bool
    unroll: int

    @classmethod
    def of(cls, equation: Equation) -> Scan:
        """Read a scan equation."""
        params = equation.params
        if "ft_in" in params:
            constants, carries = (len(part) for part in params["ft_in"].unpack()[:2])
        else:
            constants, carries = params["num_consts"], params["num_carry"]
        rest = {name: params[name] for name in ("length", "reverse", "unroll")}
        return cls(params["jaxpr"], constants, carries, **rest)

    def run(self, run: Callable[..., Sequence[Any]], operands: Sequence[Any]) -> list[Any]:
        """Evaluate with another body: from (constants, carries, slices), flat, to its outputs."""
        constants = list(operands[: self.constants])
        carry = list(operands[self.constants : self.constants + self.carries])

        def one(carry: list[Any], slices: list[Any]) -> tuple[list[Any], list[Any]]:
            results = list(run(*constants, *carry, *slices))
            return results[: self.carries], results[self.carries :]

        slices = list(operands[self.constants + self.carries :])
        carry, stacked = jax.lax.scan(
            one, carry, slices, length=self.length, reverse=self.reverse, unroll=self.unroll
        )
        return [*carry, *stacked]


def bind_loop(
    equation: Equation,
    values: Sequence[Any],
    run: Callable[[Jaxpr, Sequence[Any]], Sequence[Any]],
) -> list[Any] | None:
    """Evaluate a scan, while or cond whose bodies `run` interprets; None for anything else.

    Operand types may differ from those traced, as long as `run` keeps carries consistent.
    """
    name, params = equation.primitive.name, equation.params
    if name == "scan":
        scan = Scan.of(equation)
        return scan.run(lambda *operands: run(scan.body, operands), values)
    if name == "while":
        split, start = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
        tests, constants = list(values[:split]), list(values[split:start])
        return list(
            jax.lax.while_loop(
                lambda carry: run(params["cond_jaxpr"], [*tests, *carry])[0],
                lambda carry: list(run(params["body_jaxpr"], [*constants, *carry])),
                list(values[start:]),
            )
        )
    if name == "cond":
        branches = [
            lambda *operands, branch=branch: list(run(branch, operands))
            for branch in params["branches"]
        ]
        return list(jax.lax.switch(values[0], branches, *values[1:]))
    return None


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
