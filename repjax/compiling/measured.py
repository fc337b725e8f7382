"""`compile`: a function compiled in several ways, measured, the best one kept."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax

from repjax.compiling.candidates import candidates
from repjax.compiling.compiled import Compiled, Source
from repjax.compiling.contest import Contest
from repjax.compiling.forms import Forms, platform_of
from repjax.compiling.timing import Budget


def compile(
    fn: Callable[..., Any],
    *args: Any,
    constants: bool = False,
    time_budget: float = 60.0,
    progress: Callable[[str], Any] | None = None,
) -> Compiled:
    """Compile a function for these arguments in several ways, and keep the fastest.

    The candidates are plain ``jax.jit``; `compiler_options`; XLA:CPU without its fusion into
    YNNPACK; and, where the program has depthwise convolutions, each of these with
    `shift_depthwise`. Each is compiled, its outputs are compared with plain's, and those that
    are right are timed in alternation, by the median. Plain is kept unless another one is at
    least 1.03 times as fast.

    Outputs may differ from plain's by what `verify` allows, 16 unit roundoffs of the
    magnitude, which is found by running plain on arguments moved by a rounding. Integers and
    booleans have to be equal except at ties, where they may be what plain gives when its
    arguments move by 16 unit roundoffs. A candidate that is refused, wrong or out of time
    stands in the table with the reason.

    Args:
        fn: any function that ``jax.jit`` takes: inference, a training step, ...; it is
            compiled, and run, many times.
        *args: pytrees of arrays, the values to measure with; other leaves (functions, names,
            numbers) are handed on as they are and belong to what is compiled.
        constants: bake the first argument in, usually the parameters, which the compiler then
            lays out once. The result is called with the remaining arguments only.
        time_budget: seconds for everything, compiling included. A compilation that has begun
            is not interrupted, and plain is always compiled.
        progress: is called with one line at a time about what has been done.

    Returns:
        A `Compiled`: called like `fn` with arguments of the same structure, shapes and types;
        it prints as a table of what was tried, and has a method ``save``.

    Raises:
        TypeError: an argument has no values.
        Exception: whatever `fn` itself raises when ``jax.jit`` compiles and runs it.

    Example:
        >>> import jax.numpy as jnp
        >>> product = compile(lambda w, x: x @ w, jnp.eye(3), jnp.ones((1, 3)))
        >>> product(2 * jnp.eye(3), jnp.ones((1, 3))).tolist()
        [[2.0, 2.0, 2.0]]
        >>> product.trials[0].name
        'plain'
    """
    budget = Budget(time_budget)
    _check_values(args, constants)
    forms = free = Forms(fn, args)
    if constants:
        forms = Forms(functools.partial(fn, args[0]), args[1:])
    contest = Contest(forms, free, budget, progress or (lambda line: None))
    assert contest.plain.program is not None
    platform = platform_of(contest.plain.program)
    for candidate in candidates(platform, forms.depthwise):
        contest.admit(candidate)
    best = contest.decide()
    assert best.program is not None
    return Compiled(
        best.program,
        forms.signature,
        [one.trial(contest.plain.seconds) for one in contest.all],
        Source(forms.function(best.candidate.shifted), forms.probe(free.roundoff(platform))),
        constants=constants,
        platform=platform,
    )


def _check_values(args: tuple[Any, ...], constants: bool) -> None:
    if constants and not args:
        raise TypeError("constants=True bakes the first argument in, and there is none")
    for number, arg in enumerate(args):
        for path, leaf in jax.tree_util.tree_flatten_with_path(arg)[0]:
            if isinstance(leaf, jax.ShapeDtypeStruct | jax.core.Tracer):
                place = f"argument {number} {jax.tree_util.keystr(path)}".strip()
                raise TypeError(
                    f"{place}: compile runs the program and needs values, found "
                    f"{type(leaf).__name__}; call it with arrays, outside of jit and grad"
                )
