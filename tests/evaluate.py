"""A function traced once: what stands in its program, and what NumPy makes of it.

XLA needs half a second for a program that runs in a millisecond, so tests that ask whether two
functions are equal in real arithmetic evaluate both in NumPy. With `REPJAX_COMPILED=1` in the
environment the same tests compile.
"""

from __future__ import annotations

import collections
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core

from tests import numpy_operations, numpy_random
from tests.numpy_random import KEY, of_keys, to_keys

COMPILED = os.environ.get("REPJAX_COMPILED", "0") != "0"
RULES = numpy_operations.OPERATIONS | numpy_random.OPERATIONS
CALLS = {
    "jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint",
    "custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr",
}  # fmt: skip
BODIES = ("jaxpr", "call_jaxpr", "fun_jaxpr")


class Program:
    """The program of `function(*arguments)`; leaves that are no arrays are handed on as they are.

    Args:
        function: any JAX function.
        *arguments: pytrees; where they hold shapes only, the program has no outputs to give.
    """

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        leaves, treedef = jax.tree.flatten(arguments)
        self._places = [n for n, leaf in enumerate(leaves) if hasattr(leaf, "dtype")]

        def call(arrays: Sequence[Any]) -> Any:
            given = list(leaves)
            for place, array in zip(self._places, arrays, strict=True):
                given[place] = array
            return function(*jax.tree.unflatten(treedef, given))

        self._jitted, self._arguments = jax.jit(call), arguments
        self.jaxpr, shapes = jax.make_jaxpr(call, return_shape=True)(self._arrays(arguments))
        self._treedef = jax.tree.structure(shapes)

    def _arrays(self, arguments: Any) -> list[Any]:
        leaves = jax.tree.leaves(arguments)
        return [leaves[place] for place in self._places]

    def outputs(self, *arguments: Any) -> Any:
        """What the function returns, for the same arguments or for others of their shapes."""
        return self.compiled(*arguments) if COMPILED else self.in_numpy(*arguments)

    def compiled(self, *arguments: Any) -> Any:
        """The same by XLA."""
        return self._jitted(self._arrays(arguments or self._arguments))

    def in_numpy(self, *arguments: Any) -> Any:
        """The same, never compiled."""
        with np.errstate(all="ignore"):
            found = evaluate(self.jaxpr, self._arrays(arguments or self._arguments))
        found = [
            to_keys(value) if getattr(value, "dtype", None) == KEY else value for value in found
        ]
        return jax.tree.unflatten(self._treedef, found)

    @functools.cached_property
    def names(self) -> collections.Counter[str]:
        """How often each primitive stands in the program, calls and bodies inlined."""
        return collections.Counter(e.primitive.name for e in equations(self.jaxpr.jaxpr))


def outputs(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns, without compiling it."""
    return Program(function, *arguments).outputs()


def evaluated(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, evaluated in this way."""
    return functools.partial(outputs, function)


def evaluate(program: Any, values: Sequence[Any]) -> list[Any]:
    """The outputs of a closed jaxpr on flat values."""
    jaxpr = program.jaxpr
    known = dict(zip(jaxpr.constvars, map(plain, program.consts), strict=True))
    known.update(zip(jaxpr.invars, map(plain, values), strict=True))
    last = collections.Counter(atom for e in jaxpr.eqns for atom in e.invars if is_var(atom))
    last.update(atom for atom in jaxpr.outvars if is_var(atom))

    def read(atom: Any) -> Any:
        if not is_var(atom):
            return np.asarray(atom.val, atom.aval.dtype)
        last[atom] -= 1
        return known[atom] if last[atom] else known.pop(atom)

    for equation in jaxpr.eqns:
        operands = [read(atom) for atom in equation.invars]
        for atom, value in zip(equation.outvars, results_of(equation, operands), strict=True):
            assert np.shape(value) == atom.aval.shape, equation
            known[atom] = value
    return [read(atom) for atom in jaxpr.outvars]


def results_of(equation: Any, operands: list[Any]) -> list[Any]:
    primitive, types = equation.primitive, [atom.aval.dtype for atom in equation.outvars]
    if primitive.name in CALLS:
        body = next(equation.params[key] for key in BODIES if key in equation.params)
        closed = body if hasattr(body, "consts") else core.ClosedJaxpr(body, ())
        return evaluate(closed, operands)
    if primitive.name in RULES and all(isinstance(value, np.ndarray) for value in operands):
        found = RULES[primitive.name](equation, *operands)
        if found is not None:
            found = found if primitive.multiple_results else [found]
            return [rounded(value, kind) for value, kind in zip(found, types, strict=True)]
    operands = [
        to_keys(value) if isinstance(value, np.ndarray) and value.dtype == KEY else value
        for value in operands
    ]
    params = primitive.get_bind_params(equation.params)  # loops, scatters, rare operations
    found = primitive.bind(*operands, **params)
    return [plain(value) for value in (found if primitive.multiple_results else [found])]


def rounded(value: Any, kind: Any) -> Any:
    return np.asarray(value) if value.dtype == KEY else np.asarray(value).astype(kind, copy=False)


def plain(value: Any) -> Any:
    """A NumPy array, unless it holds random keys of a rare kind."""
    if jax.dtypes.issubdtype(value.dtype, jax.dtypes.extended):
        keys = of_keys(value)
        return value if keys is None else keys
    return np.asarray(value)


def is_var(atom: Any) -> bool:
    return not isinstance(atom, core.Literal)


def equations(jaxpr: Any) -> Any:
    """Every equation of a program, calls and bodies inlined."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in core.jaxprs_in_params(equation.params):
            yield from equations(getattr(inner, "jaxpr", inner))
