"""Running JAX programs: equation by equation, with something else in the place of some."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax

from repjax.jaxprs.reading import (
    Atom,
    Equation,
    Jaxpr,
    body_of,
    call_body,
    holds,
    is_custom_derivative,
    is_literal,
    module_path,
)

Step = Callable[[Equation, list[Any], str], Sequence[Any]]


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
