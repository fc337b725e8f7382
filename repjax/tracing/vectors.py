"""Numbers per channel: biases and scales as expressions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from repjax.algebra.dtypes import common_dtype
from repjax.tracing.expressions import Expressions, Node, is_float

_VECTOR: dict[str, Callable[..., Any]] = {
    "add": jnp.add,
    "mul": jnp.multiply,
    "div": jnp.divide,
    "neg": jnp.negative,
}


@dataclasses.dataclass(frozen=True)
class Vectors:
    """Builds vectors among the expressions of a program."""

    expressions: Expressions

    def wide(self, node: Node) -> Node:
        """A weight without the float casts at its end."""
        while node.name == "convert_element_type" and _is_real(node, node.operands[0]):
            node = node.operands[0]
        return node

    def full(self, number: float, features: int) -> Node:
        """A vector of one number."""
        return self.expressions.constant(np.full((features,), number, np.float32))

    def vector(self, name: str, *operands: Node | None) -> Node:
        """The sum ("add"), product ("mul"), quotient ("div") or negative ("neg") of vectors."""
        present = [operand for operand in operands if operand is not None]
        run = _VECTOR[name]

        def promoted(*values: Any) -> Any:
            arrays = [jnp.asarray(value) for value in values]
            dtype = common_dtype(*(array.dtype for array in arrays), jnp.float32)
            return run(*(array.astype(dtype) for array in arrays))

        if name in {"add", "mul"}:
            present.sort(key=lambda node: node.key)
        node = present[0]
        return self.expressions.node(
            name, present, promoted, static="vector", shape=node.shape, dtype=node.dtype
        )

    def joined(self, vectors: Sequence[Node]) -> Node:
        """Vectors one after the other."""
        features = sum((node.shape or (0,))[0] for node in vectors)

        def run(*values: Any) -> Any:
            dtype = common_dtype(*(jnp.asarray(value).dtype for value in values))
            return jnp.concatenate([jnp.asarray(value).astype(dtype) for value in values])

        return self.expressions.node(
            "joined", vectors, run, shape=(features,), dtype=vectors[0].dtype
        )


def _is_real(*nodes: Node) -> bool:
    return all(node.dtype is not None and is_float(node.dtype) for node in nodes)
