"""Numbers per channel: biases and scales, as weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from repjax.algebra.dtypes import common_dtype
from repjax.tracing.program.weights import Weight, Weights, constant_value, is_float

_ARITHMETIC: dict[str, Callable[..., Any]] = {
    "add": jnp.add,
    "mul": jnp.multiply,
    "div": jnp.divide,
    "neg": jnp.negative,
}


@dataclasses.dataclass(frozen=True)
class Vectors:
    """Builds vectors among the weights of a program."""

    weights: Weights

    def wide(self, weight: Weight) -> Weight:
        """A weight without the float casts at its end."""
        while weight.name == "convert_element_type" and _is_real(weight, weight.operands[0]):
            weight = weight.operands[0]
        return weight

    def full(self, number: float, features: int) -> Weight:
        """A vector of one number."""
        return self.weights.constant(np.full((features,), number, np.float32))

    def one_over(self, count: int, features: int) -> Weight:
        """A vector of 1 / `count`, in the widest type that is enabled when it is read."""
        return self.weights.node(
            "one over",
            run=lambda: jnp.full((features,), 1.0 / count),
            static=(count, features),
            shape=(features,),
            dtype=np.dtype(np.float32),
        )

    def arithmetic(self, name: str, *operands: Weight) -> Weight:
        """The sum ("add"), product ("mul"), quotient ("div") or negative ("neg") of vectors."""
        if name in {"mul", "div"}:
            one, two = operands
            if is_all(two, 1.0):
                return one
            if name == "mul" and is_all(one, 1.0):
                return two
            if is_all(two, -1.0):
                return self.arithmetic("neg", one)
        if name == "neg" and operands[0].name == "neg":
            return operands[0].operands[0]
        if name in {"add", "mul"}:
            operands = tuple(sorted(operands, key=lambda weight: weight.number))
        run = _ARITHMETIC[name]

        def promoted(*values: Any) -> Any:
            arrays = [jnp.asarray(value) for value in values]
            dtype = common_dtype(*(array.dtype for array in arrays), jnp.float32)
            return run(*(array.astype(dtype) for array in arrays))

        first = operands[0]
        return self.weights.node(
            name, operands, promoted, static="vector", shape=first.shape, dtype=first.dtype
        )

    def total(self, vectors: Sequence[Weight | None]) -> Weight | None:
        """The sum of those that are there."""
        present = [vector for vector in vectors if vector is not None]
        total = present[0] if present else None
        for vector in present[1:]:
            assert total is not None
            total = self.arithmetic("add", total, vector)
        return total

    def joined(self, vectors: Sequence[Weight], axis: int = 0) -> Weight:
        """Vectors (or images, on their last axis) one after the other."""
        shapes = [weight.shape or () for weight in vectors]
        length = sum(shape[axis] for shape in shapes)

        def run(*values: Any) -> Any:
            dtype = common_dtype(*(jnp.asarray(value).dtype for value in values))
            parts = [jnp.asarray(value).astype(dtype) for value in values]
            return jnp.concatenate(parts, axis=axis)

        return self.weights.node(
            *("joined", vectors, run),
            static=axis,
            shape=(*shapes[0][:axis], length) if axis >= 0 else (*shapes[0][:-1], length),
            dtype=vectors[0].dtype,
        )

    def picked(self, vector: Weight, chosen: Sequence[int], otherwise: float = 0.0) -> Weight:
        """Entries of a vector (or of the last axis) in some order; -1 stands for `otherwise`."""
        if list(chosen) == list(range((vector.shape or (0,))[-1])):
            return vector
        index = np.asarray(chosen, dtype=np.int32)

        def run(value: Any) -> Any:
            value = jnp.asarray(value)
            found = jnp.take(value, np.maximum(index, 0), axis=-1, mode="clip")
            return jnp.where(index >= 0, found, jnp.asarray(otherwise, value.dtype))

        return self.weights.node(
            *("picked", [vector], run),
            static=(tuple(map(int, chosen)), otherwise),
            shape=(*(vector.shape or ())[:-1], len(index)),
            dtype=vector.dtype,
        )


def is_all(weight: Weight, number: float) -> bool:
    """Whether a weight is a constant, every entry of which is this number."""
    value = constant_value(weight)
    return value is not None and value.size > 0 and bool(np.all(value == number))


def uniform_number(weight: Weight) -> float | None:
    """The one number of a constant whose entries are all equal; None otherwise."""
    value = constant_value(weight)
    if value is None or not value.size or value.dtype.kind not in "fiu":
        return None
    first = value.ravel()[0]
    return float(first) if np.all(value == first) else None


def without_factor(vector: Weight, number: int) -> Weight | None:
    """The vector that was multiplied by a number to give this one; None if it was not."""
    if vector.name != "mul" or vector.static != "vector":
        return None
    one, two = vector.operands
    for factor, rest in ((one, two), (two, one)):
        if is_all(factor, float(number)):
            return rest
    return None


def _is_real(*weights: Weight) -> bool:
    return all(is_float(weight.dtype) for weight in weights)
