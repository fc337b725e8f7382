"""How far the outputs of a program may lie from expected ones: by what rounding moves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from repjax._dependence import comparable
from repjax._verification import MARGIN

SAMPLES = 4
"""So often a program is run with moved arguments."""

_PRODUCTS = {"gpu": 2.0**-11, "tpu": 2.0**-9}
"""Unit roundoff of float32 products with JAX's default precision, where it is larger."""

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class Expected:
    """One output as it should be, and how far another program may be from it.

    Args:
        value: the output.
        bound: elementwise bounds, of the shape of `value`; None for integers and booleans.
        ties: values that may stand in the place of `value`, (runs, *shape).
    """

    value: Array
    bound: Array | None
    ties: Array

    def problem(self, found: Array) -> str | None:
        """What is wrong with another output, None where it is as expected."""
        if self.bound is None:
            wrong = (found != self.value) & (found != self.ties).all(axis=0)
            return f"{wrong.sum()} of {wrong.size} integers differ" if wrong.any() else None
        finite = np.isfinite(self.value)
        with np.errstate(invalid="ignore"):
            far = np.where(finite, np.abs(found - self.value), 0.0)
        same = (found == self.value) | (np.isnan(found) & np.isnan(self.value))
        wrong = np.where(finite, ~(far <= self.bound), ~same)
        if not wrong.any():
            return None
        worst = np.nanargmax(np.where(wrong, far, -1.0))
        return (
            f"{wrong.sum()} of {wrong.size} numbers differ, the worst by {far.flat[worst]:.1e} "
            f"where {self.bound.flat[worst]:.1e} is rounding"
        )


def expect(run: Callable[..., Any], arrays: Any, roundoff: float) -> list[Expected]:
    """The outputs of a program, each with its tolerance.

    The bound is that of `verify`, ``16 * u * magnitude``, with the magnitude estimated by
    running the program as it is: what the outputs move, per unit roundoff u, when every
    floating argument moves by ``2 * u`` up or down at random (which rounds all operations
    inside anew), root mean square over the runs, of the element and of the whole output
    together, and the output's own absolute value. Integers and booleans have to be equal,
    except at ties: an element may be what the program itself gives there when its arguments
    move by ``16 * u``.

    Args:
        run: the program.
        arrays: its arguments, a list of pytrees of arrays.
        roundoff: u, of the coarsest type in the program.
    """
    values = outputs_of(run(*arrays))
    squares = [np.zeros(value.shape) for value in values]
    ties: list[list[Array]] = [[] for _ in values]
    discrete = [not _inexact(value) for value in values]
    for seed in range(SAMPLES):
        if not all(discrete):
            found = outputs_of(run(*moved(arrays, 2 * roundoff, seed)))
            for place, value in enumerate(values):
                if not discrete[place]:
                    squares[place] += _squared(found[place], value)
        if any(discrete):
            found = outputs_of(run(*moved(arrays, MARGIN * roundoff, seed)))
            for place, value in enumerate(found):
                if discrete[place]:
                    ties[place].append(value)
    return [
        Expected(value, None, np.asarray(others))
        if whole
        else Expected(value, _bound(value, square / SAMPLES, roundoff), np.zeros((0, *value.shape)))
        for value, square, others, whole in zip(values, squares, ties, discrete, strict=True)
    ]


def compare(expected: Sequence[Expected], outputs: Sequence[Array]) -> str | None:
    """What is wrong with the outputs of another program, None where they are as expected."""
    for number, (one, found) in enumerate(zip(expected, outputs, strict=True)):
        problem = one.problem(found)
        if problem is not None:
            return f"output {number}: {problem}" if len(expected) > 1 else problem
    return None


def outputs_of(tree: Any) -> list[Array]:
    """The arrays of an output in NumPy: floats in float64, PRNG keys by their data."""
    return [_wide(comparable(leaf)) for leaf in jax.tree.leaves(tree)]


def coarsest_product(platform: str) -> float:
    """Unit roundoff of what float32 products are rounded to on a platform, 0 if it is float32."""
    return _PRODUCTS.get(platform, 0.0)


def moved(arrays: Any, amount: float, seed: int) -> Any:
    """The same arrays with every floating number moved by this fraction, up or down.

    An array of nothing but zeros is moved by the amount itself.
    """
    signs = np.random.default_rng(seed)

    def move(leaf: Any) -> Any:
        if not _inexact(leaf):
            return leaf
        array = np.asarray(leaf)
        wide = array.astype(jnp.promote_types(array.dtype, jnp.float32))
        up = signs.integers(0, 2, array.shape, dtype=np.int8).astype(bool)
        step = np.where(up, amount, -amount).astype(wide.real.dtype)
        result = wide + step * (wide if wide.any() else 1)
        result = result.astype(array.dtype)
        return jax.device_put(result, leaf.sharding) if isinstance(leaf, jax.Array) else result

    return jax.tree.map(move, arrays)


def _inexact(leaf: Any) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jnp.inexact))


def _wide(array: Array) -> Array:
    if not _inexact(array):
        return array
    return array.astype(np.complex128 if np.iscomplexobj(array) else np.float64)


def _squared(found: Array, value: Array) -> Array:
    with np.errstate(invalid="ignore", over="ignore"):
        square = np.abs(found - value) ** 2
    return np.where(np.isfinite(square), square, 0.0)


def _bound(value: Array, square: Array, roundoff: float) -> Array:
    size = np.where(np.isfinite(value), np.abs(value), 0.0)
    magnitude = (square + square.mean() if square.size else square) / (2 * roundoff) ** 2
    bound: Array = MARGIN * roundoff * np.sqrt(magnitude + size**2)
    return bound
