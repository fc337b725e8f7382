"""Counting what a program does, by primitive name."""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any

import jax

from repjax.jaxprs import Jaxpr, equations
from repjax.leaves import Leaves


def trace(fn: Callable[..., Any], *args: Any) -> Jaxpr:
    """The program of a function; arguments may have leaves that are no arrays."""
    if isinstance(fn, jax.stages.Wrapped):  # with compiler options it can be inside of nothing
        jaxpr: Jaxpr = fn.trace(*args).jaxpr
        return jaxpr
    leaves = Leaves(args)
    return jax.make_jaxpr(lambda arrays: fn(*leaves.rebuild(arrays)))(leaves.arrays)


def count_operations(fn: Callable[..., Any], *args: Any) -> collections.Counter[str]:
    """How many operations of each kind a function performs, by primitive name.

    Calls (``jit``, remat, custom derivatives) are counted by what they hold, a scan by its
    body times its length, a ``while`` by one turn, a ``cond`` by its largest branch.

    Args:
        fn: any JAX function.
        *args: pytrees of arrays or ``jax.ShapeDtypeStruct``, other leaves as they are (an
            Equinox module is one); nothing is computed.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jax.ShapeDtypeStruct((4, 4), jnp.float32)
        >>> count_operations(jax.jit(lambda x: jnp.sin(x @ x)), x)["dot_general"]
        1
    """
    return operations_in(trace(fn, *args))


def operations_in(jaxpr: Jaxpr) -> collections.Counter[str]:
    """How many operations of each kind stand in a program, counted as `count_operations` does."""
    total: collections.Counter[str] = collections.Counter()
    for equation in equations(jaxpr):
        name, params = equation.primitive.name, equation.params
        if name == "scan":
            inner = operations_in(params["jaxpr"])
            total.update({key: number * params["length"] for key, number in inner.items()})
        elif name == "while":
            total += operations_in(params["cond_jaxpr"]) + operations_in(params["body_jaxpr"])
        elif name == "cond":
            largest: collections.Counter[str] = collections.Counter()
            for branch in params["branches"]:
                largest |= operations_in(branch)
            total += largest
        else:
            total[name] += 1
    return total
