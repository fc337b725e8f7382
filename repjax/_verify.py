"""`verify`: do two programs compute the same function? Judged against float64."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from repjax import jaxprs
from repjax.primitives import EXACT, HEAVY

MARGIN = 16.0
"""The bound is this many unit roundoffs of the magnitude; correct folds stay below 9."""

SAMPLES = 8


@dataclasses.dataclass(frozen=True)
class Verification:
    """What `verify` found; true where the two programs agree, and it prints as a table.

    Attributes:
        largest: largest absolute value of the float64 output of `a`.
        difference: largest difference of the two programs, both in float64.
        error_a: largest error of `a`, as it runs, against its float64 value.
        error_b: largest error of `b`, as it runs, against the float64 value of `a`.
        bound: largest of the elementwise bounds.
        worst: largest ratio of an error of `b`, or of the difference, to its own bound; the
            difference is held to the roundoff of the stored variables.
        roundoff: unit roundoff of the coarsest type in either program.
        dtype: that type's name.
        problem: why the outputs cannot be compared, or None.
    """

    largest: float = 0.0
    difference: float = 0.0
    error_a: float = 0.0
    error_b: float = 0.0
    bound: float = 0.0
    worst: float = 0.0
    roundoff: float = 0.0
    dtype: str = ""
    problem: str | None = None

    def __bool__(self) -> bool:
        """Whether the programs agree: every error is within its own bound."""
        return self.problem is None and self.worst <= 1.0

    def __str__(self) -> str:
        if self.problem is not None:
            return f"not equal: {self.problem}"
        verdict = "equal to rounding" if self else "NOT equal"
        return "\n".join(
            [
                f"{verdict} ({self.dtype})",
                f"  largest output                {self.largest:.3g}",
                f"  b - a, both in float64        {self.difference:.2e}",
                f"  error of a against float64    {self.error_a:.2e}",
                f"  error of b against float64    {self.error_b:.2e}",
                f"  allowed, largest              {self.bound:.2e}"
                f"   ({MARGIN:g} x {self.roundoff:.1e} x magnitude)",
                f"  worst error / its own bound   {self.worst:.3f}",
            ]
        )


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
    coarsest type in use (for the difference of the two in float64: of the coarsest type in
    which variables are stored); magnitude is what one rounding in every operation and parameter of
    `a` makes of that output, ``|K| * |x| + |b|`` for a convolution, carried through the
    network to first order and averaged over signs.

    Args:
        apply_a: the reference, ``apply_a(variables_a, *inputs)``, usually the native form.
        variables_a: its variables, any pytree of arrays.
        apply_b: the program in question, usually the fused form.
        variables_b: its variables.
        *inputs: pytrees of arrays, the same for both.

    Returns:
        A `Verification`: true where they agree, printable, with every figure.

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
    programs_ = [
        jax.make_jaxpr(apply_a)(variables_a, *inputs),
        jax.make_jaxpr(apply_b)(variables_b, *inputs),
    ]
    with jax.default_matmul_precision("highest"):
        out_a = jax.jit(apply_a)(variables_a, *inputs)
        out_b = jax.jit(apply_b)(variables_b, *inputs)
    problem = _mismatch(out_a, out_b)
    if problem is not None:
        return Verification(problem=problem)
    dtype, roundoff = _coarsest(atom.aval for program in programs_ for atom in _atoms(program))
    _, stored = _coarsest(jax.tree.leaves((variables_a, variables_b)))
    with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
        runs = [_Float64(program) for program in programs_]
        flat_a, flat_b = (
            [_float64(leaf) for leaf in jax.tree.leaves((variables, inputs))]
            for variables in (variables_a, variables_b)
        )
        exact_a, exact_b = runs[0](flat_a, 0, 0.0), runs[1](flat_b, 0, 0.0)
        rounded = [runs[0](flat_a, seed, roundoff) for seed in range(1, SAMPLES + 1)]
    names = ["largest", "difference", "error_a", "error_b", "bound", "worst"]
    figures: dict[str, Any] = dict.fromkeys(names, 0.0)
    leaves = zip(jax.tree.leaves(out_a), jax.tree.leaves(out_b), exact_a, exact_b, strict=True)
    for number, (low_a, low_b, true_a, true_b) in enumerate(leaves):
        if not jnp.issubdtype(low_a.dtype, jnp.floating):
            if not np.array_equal(np.asarray(low_a), np.asarray(low_b)):
                return Verification(problem=f"output {number} of type {low_a.dtype} differs")
            continue
        truth, other = np.asarray(true_a), np.asarray(true_b)
        spread = [np.asarray(sample[number]) - truth for sample in rounded]
        bound = MARGIN * np.sqrt(np.mean(np.square(spread), axis=0))
        error_a, error_b = (np.abs(_float64(low) - truth) for low in (low_a, low_b))
        difference = np.abs(other - truth)
        found = [np.abs(truth), difference, error_a, error_b, bound]
        real = _ratio(difference, bound * min(stored / roundoff, 1.0))
        found.append(np.maximum(_ratio(error_b, bound), real))
        for name, values in zip(names, found, strict=True):
            figures[name] = max(figures[name], float(values.max(initial=0.0)))
    return Verification(**figures, roundoff=roundoff, dtype=jnp.dtype(dtype).name)


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
                result + rounding(result.shape) * jnp.abs(scale) if _is_float(result) else result
                for result, scale in zip(results, scales, strict=True)
            ]

        def run(jaxpr: Any, operands: Sequence[Any]) -> list[Any]:
            return jaxprs.interpret(jaxpr, operands, step, keep=lambda _: False)

        rounded = [
            value * (1 + rounding(value.shape)) if amount and _is_float(value) else value
            for value in values
        ]
        return [_float64(value) for value in run(self.program, rounded)]


def _bind64(equation: Any, operands: list[Any]) -> list[Any]:
    """One equation with every floating type in it promoted; as traced where that is refused."""
    if equation.primitive.name == "reduce_precision":
        return operands
    params = {
        name: np.dtype(np.float64) if _is_float_type(value) else value
        for name, value in equation.params.items()
    }
    try:
        promoted = jaxprs.bind(equation.replace(params=params), operands)
    except (TypeError, ValueError, NotImplementedError):
        traced = [
            jnp.asarray(operand).astype(atom.aval.dtype) if _is_float(operand) else operand
            for operand, atom in zip(operands, equation.invars, strict=True)
        ]
        promoted = jaxprs.bind(equation, traced)
    return [_float64(value) for value in promoted]


def _float64(value: Any) -> Any:
    if not _is_float(value):
        return value
    if isinstance(value, jax.core.Tracer):
        return value.astype(jnp.float64)
    return np.asarray(value).astype(np.float64)


def _magnitude(value: Any) -> Any:
    return jnp.abs(value) if _is_float(value) else value


def _is_float(value: Any) -> bool:
    kind = value.dtype if hasattr(value, "dtype") else jnp.result_type(value)
    return bool(jnp.issubdtype(kind, jnp.floating))


def _is_float_type(value: Any) -> bool:
    return isinstance(value, np.dtype | type) and jnp.issubdtype(value, jnp.floating)


def _coarsest(values: Iterable[Any]) -> tuple[str, float]:
    """Name and unit roundoff of the floating type among the values that rounds most."""
    kinds = {np.dtype(getattr(value, "dtype", np.float64)) for value in values if _is_float(value)}
    found = {kind.name: float(jnp.finfo(kind).eps) / 2 for kind in kinds}  # type: ignore[no-untyped-call]
    return max((found or {"float64": 2.0**-53}).items(), key=lambda item: item[1])


def _atoms(program: Any) -> Iterator[Any]:
    yield from jaxprs.body_of(program).inputs
    for equation in jaxprs.equations(program):
        yield from equation.outvars


def _mismatch(one: Any, two: Any) -> str | None:
    structures = [str(jax.tree.structure(tree)) for tree in (one, two)]
    if structures[0] != structures[1]:
        return f"outputs are {structures[0]} and {structures[1]}"
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True)
    shapes = [(a.shape, b.shape) for a, b in pairs if a.shape != b.shape]
    return f"output shapes differ: {shapes}" if shapes else None


def _ratio(error: np.ndarray[Any, Any], bound: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(error == 0, 0.0, error / bound)
    return np.where(np.isnan(ratio), np.inf, ratio)
