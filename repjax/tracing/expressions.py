"""Weights as expressions: what depends on variables and constants only, evaluated once.

An expression is a node of a graph without data. Nodes of the same meaning are the same
node, so that a value is computed and stored once, and equal nodes of two traces have equal
keys. Arrays and `repjax.algebra.Conv` are values alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from repjax.algebra.dtypes import common_dtype
from repjax.tracing import programs


class Node:
    """One expression: an operation on other expressions.

    Attributes:
        name: of the operation ("leaf" for a variable, "constant", a primitive, ...).
        operands: expressions it is computed from.
        shape: of the value as traced (None for a `Conv`).
        dtype: of the value as traced.
        leaves: indices of the variables it depends on.
        kernels: those of them that enter as a kernel, not only as a vector.
    """

    __slots__ = (
        *("dtype", "equation", "key", "kernels", "leaves", "name", "number", "operands"),
        *("run", "shape", "value"),
    )

    name: str
    key: str
    number: int
    operands: tuple[Node, ...]
    run: Callable[..., Any]
    shape: tuple[int, ...] | None
    dtype: Any
    leaves: frozenset[int]
    kernels: frozenset[int]
    equation: Any
    value: Any

    def __repr__(self) -> str:
        return f"{self.name}{self.shape}#{self.number}"


class Expressions:
    """All the expressions of one program."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}

    def node(
        self,
        name: str,
        operands: Sequence[Node] = (),
        run: Callable[..., Any] | None = None,
        *,
        static: Any = "",
        shape: tuple[int, ...] | None = None,
        dtype: Any = None,
        leaf: int | None = None,
        kernel: bool = False,
        equation: Any = None,
        value: Any = None,
    ) -> Node:
        """The node of an operation; `static` is what tells it from others of that name."""
        words = [name, str(static), *(operand.key for operand in operands)]
        key = hashlib.sha1("\n".join(words).encode()).hexdigest()
        if key in self._nodes:
            return self._nodes[key]
        node = Node()
        node.name, node.key, node.operands = name, key, tuple(operands)
        node.number = len(self._nodes)
        node.run = run if run is not None else lambda: value
        node.shape, node.dtype, node.equation, node.value = shape, dtype, equation, value
        own = frozenset() if leaf is None else frozenset({leaf})
        node.leaves = own.union(*(operand.leaves for operand in operands))
        node.kernels = frozenset().union(*(operand.kernels for operand in operands))
        if kernel:
            node.kernels = node.kernels | node.leaves
        self._nodes[key] = node
        return node

    def leaf(self, index: int, shape: tuple[int, ...], dtype: Any) -> Node:
        """A variable, by its position among the flat leaves."""
        return self.node("leaf", static=index, shape=shape, dtype=dtype, leaf=index, value=index)

    def constant(self, value: Any) -> Node:
        """A value known while tracing."""
        aval = jax.typeof(value)
        static = _fingerprint(value, aval)
        return self.node("constant", static=static, shape=aval.shape, dtype=aval.dtype, value=value)

    def equation(self, equation: Any, operands: Sequence[Node]) -> list[Node]:
        """The results of an equation whose operands are all weights."""
        static = describe(equation)
        avals = [atom.aval for atom in equation.outvars]
        name = equation.primitive.name
        if not equation.primitive.multiple_results:
            aval = avals[0]

            def run(*values: Any) -> Any:
                return _bind_wide(equation, values)[0]

            shape, dtype = _shape(aval), _dtype(aval)
            return [
                self.node(
                    *(name, operands, run),
                    static=static,
                    shape=shape,
                    dtype=dtype,
                    equation=equation,
                )
            ]

        def run_all(*values: Any) -> list[Any]:
            return _bind_wide(equation, values)

        whole = self.node(name, operands, run_all, static=static, equation=equation)
        return [
            self.node(
                "part",
                [whole],
                lambda results, index=index: results[index],
                static=index,
                shape=_shape(aval),
                dtype=_dtype(aval),
            )
            for index, aval in enumerate(avals)
        ]


def evaluate(nodes: Iterable[Node], leaves: Sequence[Any] | Mapping[int, Any]) -> dict[Node, Any]:
    """Values of the nodes (and of all they need) for these variables."""
    needed = reachable(nodes)
    values: dict[Node, Any] = {}
    for node in sorted(needed, key=lambda node: node.number):
        if node.name == "leaf":
            values[node] = leaves[node.value]
        else:
            values[node] = node.run(*(values[operand] for operand in node.operands))
    return values


def reachable(nodes: Iterable[Node]) -> set[Node]:
    """The nodes and everything they are computed from."""
    found: set[Node] = set()
    stack = list(nodes)
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            stack.extend(node.operands)
    return found


def is_float(dtype: Any) -> bool:
    """Whether a type counts as a real number here: floats of 16 bits and more.

    Narrower floats are quantization on purpose and are left alone.
    """
    if jnp.issubdtype(dtype, jax.dtypes.extended):
        return False
    return bool(jnp.issubdtype(dtype, jnp.floating)) and np.dtype(dtype).itemsize >= 2


_SAME_TYPE = frozenset({"add", "add_any", "sub", "mul", "div", "max", "min", "pow", "atan2"})


def _bind_wide(equation: Any, values: Sequence[Any]) -> list[Any]:
    """Evaluate an equation, without narrowing floats: casts down are looked through."""
    name = equation.primitive.name
    if name == "convert_element_type" and is_float(equation.params["new_dtype"]):
        value = jnp.asarray(values[0])
        if is_float(value.dtype):
            return [value.astype(common_dtype(value.dtype, equation.params["new_dtype"]))]
    if name in _SAME_TYPE and all(is_float(common_dtype(value)) for value in values):
        wide = common_dtype(*(jnp.asarray(value).dtype for value in values))
        return programs.bind(equation, [jnp.asarray(value).astype(wide) for value in values])
    if len(equation.invars) == 1 and not any(map(_is_jaxpr, equation.params.values())):
        return programs.bind(equation, values)
    return bind_as_traced(equation, values)


def bind_as_traced(equation: Any, values: Sequence[Any]) -> list[Any]:
    """Evaluate an equation in the types it was traced with."""
    operands = []
    for atom, value in zip(equation.invars, values, strict=True):
        operands.append(as_traced(value, _dtype(atom.aval)))
    return programs.bind(equation, operands)


def as_traced(value: Any, dtype: Any) -> Any:
    """A value in the type it was traced with, if that is a float type."""
    if dtype is None or not is_float(dtype) or common_dtype(value) == dtype:
        return value
    return jnp.asarray(value).astype(dtype)


def _shape(aval: Any) -> tuple[int, ...] | None:
    return getattr(aval, "shape", None)


def _dtype(aval: Any) -> Any:
    return getattr(aval, "dtype", None)


def _is_jaxpr(value: Any) -> bool:
    return hasattr(value, "eqns")


def describe(equation: Any) -> str:
    """Parameters of an equation as text, the same for two traces of the same program."""
    if programs.is_custom_derivative(equation):
        return f"{equation.primitive.name} {programs.call_body(equation)}"
    words = [
        f"{key}={value}"
        for key, value in sorted(equation.params.items())
        if not (callable(value) and not _is_jaxpr(value) and not isinstance(value, type))
    ]
    return f"{equation.primitive.name} {' '.join(words)}"


def _fingerprint(value: Any, aval: Any) -> str:
    if isinstance(value, jax.core.Tracer) or jnp.issubdtype(aval.dtype, jax.dtypes.extended):
        return f"object {id(value)}"
    array = np.asarray(value)
    digest = hashlib.sha1(array.tobytes()).hexdigest()
    return f"{aval.dtype}{aval.shape} {digest}"
