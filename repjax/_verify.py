"""`verify`: do two programs compute the same function? Judged against float64."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from repjax import jaxprs
from repjax._dependence import (
    arrays_only,
    coarsest,
    comparable,
    is_float,
    is_float_type,
    nudged,
    reached,
)
from repjax._verification import (
    FIGURES,
    MARGIN,
    Verification,
    difference_of,
    figures_of,
    silence,
    unbounded,
)
from repjax.primitives import EXACT, HEAVY

SAMPLES = 8


def verify(
    apply_a: Callable[..., Any],
    variables_a: Any,
    apply_b: Callable[..., Any],
    variables_b: Any,
    *inputs: Any,
) -> Verification:
    """Compare two programs on the same inputs, each output element against its own bound.

    Both run as they are, jitted, with float32 products in full precision; and both run in
    float64 on the CPU, by promoting every floating type of their traced programs (a module
    with ``dtype=float32`` casts down even under x64). An output of `b` may then differ from
    the float64 output of `a` by ``16 * u * magnitude``: u is the unit roundoff of the
    coarsest type that the outputs go through (for the difference of the two in float64: of
    the coarsest type in which variables that they depend on are stored); magnitude is what
    one rounding in every operation and parameter of `a` makes of that output. For one
    convolution that is ``|K| * |x| + |b|``, known beforehand; for a network it is estimated,
    to first order, as the root mean square over eight runs with random roundings.

    Args:
        apply_a: the reference, ``apply_a(variables_a, *inputs)``, usually the native form.
        variables_a: its variables, any pytree; leaves that are no arrays (functions, flags
            and numbers of Equinox modules) are handed on as they are.
        apply_b: the program in question, usually the fused form.
        variables_b: its variables.
        *inputs: pytrees of arrays, the same for both.

    Returns:
        A `Verification`, printable, with every figure: true where the two agree. It has a
        third verdict, "proves nothing", for outputs that are zero or do not depend on the
        inputs: two broken programs would agree there too.

    Source: forward error bounds as in Higham, Accuracy and Stability of Numerical
    Algorithms, SIAM 2002, chapter 3.

    Example:
        >>> import repjax
        >>> block, x = repjax.blocks.ResidualConv(2), jnp.ones((1, 9, 9, 2))
        >>> native = block.init(jax.random.key(0), x)
        >>> fused = repjax.fuse_params(native)
        >>> bool(verify(block.apply, native, block.deploy().apply, fused, x))
        True
    """
    calls = [
        arrays_only(apply, variables, inputs)
        for apply, variables in ((apply_a, variables_a), (apply_b, variables_b))
    ]
    programs_ = [jax.make_jaxpr(call)(arrays) for call, arrays, _ in calls]
    with jax.default_matmul_precision("highest"):
        out_a, out_b = (jax.jit(call)(arrays) for call, arrays, _ in calls)
    problem = _mismatch(out_a, out_b)
    if problem is not None:
        return Verification(problem=problem)
    reaches = [reached(program) for program in programs_]
    dtype, roundoff = coarsest(kind for found in reaches for kind in found.types)
    _, stored = coarsest(
        arrays[number].dtype
        for (_, arrays, variables), found in zip(calls, reaches, strict=True)
        for number in found.inputs
        if number < variables
    )
    with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
        runs = [_Float64(program) for program in programs_]
        flat_a, flat_b = ([_float64(leaf) for leaf in arrays] for _, arrays, _ in calls)
        exact_a, exact_b = runs[0](flat_a, 0, 0.0), runs[1](flat_b, 0, 0.0)
        rounded = [runs[0](flat_a, seed, roundoff) for seed in range(1, SAMPLES + 1)]
        moved = runs[0](nudged(flat_a, calls[0][2]), 0, 0.0)
    figures: list[dict[str, float]] = []
    outputs = zip(jax.tree.leaves(out_a), jax.tree.leaves(out_b), exact_a, exact_b, strict=True)
    for number, (low_a, low_b, *exact) in enumerate(outputs):
        if not jnp.issubdtype(low_a.dtype, jnp.floating):
            if not np.array_equal(comparable(low_a), comparable(low_b)):
                return Verification(problem=f"output {number} of type {low_a.dtype} differs")
            continue
        truth, other, low_a, low_b = (np.asarray(_float64(v)) for v in (*exact, low_a, low_b))
        problem = unbounded(number, truth, other, low_a, low_b)
        if problem is not None:
            return Verification(problem=problem)
        spread = [difference_of(np.asarray(sample[number]), truth) for sample in rounded]
        bound = MARGIN * np.sqrt(np.mean(np.square(spread), axis=0))
        held = min(stored / roundoff, 1.0)
        figures.append(figures_of(truth, other, low_a, low_b, bound, held))
    largest: dict[str, Any] = {
        name: max((found[name] for found in figures), default=0.0) for name in FIGURES
    }
    changes = [
        not np.array_equal(np.asarray(one), np.asarray(two))
        for one, two in zip(exact_a, moved, strict=True)
        if is_float(one)
    ]
    found = Verification(roundoff=roundoff, dtype=dtype, silent=silence(largest, changes))
    return dataclasses.replace(found, **largest)


class _Float64:
    """A traced program in float64; with an amount, every operation is rounded at random."""

    def __init__(self, program: Any) -> None:
        self.program = program

    def __call__(self, values: Sequence[Any], seed: int, amount: float) -> list[Any]:
        signs = np.random.default_rng(seed)

        def rounding(shape: Sequence[int]) -> np.ndarray[Any, Any]:
            return amount * signs.choice([-1.0, 1.0], size=tuple(shape))

        def step(equation: Any, operands: list[Any], scope: str) -> Sequence[Any]:
            operands = [_float64(operand) for operand in operands]
            looped = jaxprs.bind_loop(equation, operands, run)
            if looped is not None:
                return [_float64(value) for value in looped]
            results = _bind64(equation, operands)
            if equation.primitive.name in EXACT or not amount:
                return results
            scales = results
            if equation.primitive.name in HEAVY | {"reduce_sum", "cumsum"}:
                scales = _bind64(equation, [_magnitude(operand) for operand in operands])
            return [
                result + rounding(result.shape) * jnp.abs(scale) if is_float(result) else result
                for result, scale in zip(results, scales, strict=True)
            ]

        def run(jaxpr: Any, operands: Sequence[Any]) -> list[Any]:
            return jaxprs.interpret(jaxpr, operands, step, keep=lambda _: False)

        rounded = [
            value * (1 + rounding(value.shape)) if amount and is_float(value) else value
            for value in values
        ]
        return [_float64(value) for value in run(self.program, rounded)]


def _bind64(equation: Any, operands: list[Any]) -> list[Any]:
    """One equation with every floating type in it promoted; as traced where that is refused."""
    if equation.primitive.name == "reduce_precision":
        return operands
    params = {
        name: np.dtype(np.float64) if is_float_type(value) else value
        for name, value in equation.params.items()
    }
    try:
        promoted = jaxprs.bind(equation.replace(params=params), operands)
    except (TypeError, ValueError, NotImplementedError):
        traced = [
            jnp.asarray(operand).astype(atom.aval.dtype) if is_float(operand) else operand
            for operand, atom in zip(operands, equation.invars, strict=True)
        ]
        promoted = jaxprs.bind(equation, traced)
    return [_float64(value) for value in promoted]


def _float64(value: Any) -> Any:
    if not is_float(value):
        return value
    if isinstance(value, jax.core.Tracer):
        return value.astype(jnp.float64)
    return np.asarray(value).astype(np.float64)


def _magnitude(value: Any) -> Any:
    return jnp.abs(value) if is_float(value) else value


def _mismatch(one: Any, two: Any) -> str | None:
    structures = [str(jax.tree.structure(tree)) for tree in (one, two)]
    if structures[0] != structures[1]:
        return f"outputs are {structures[0]} and {structures[1]}"
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True)
    shapes = [(a.shape, b.shape) for a, b in pairs if a.shape != b.shape]
    return f"output shapes differ: {shapes}" if shapes else None
