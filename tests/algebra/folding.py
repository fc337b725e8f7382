"""Runs a fold in NumPy, from the program that JAX traces of it.

Laws are tested on hundreds of geometries; compiling each would take minutes. The program
is the one that `jit` runs (test_transformations.py holds both together), and an operation
that is not listed here fails: kernels may meet by products and shifted sums only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from repjax.algebra import Conv


def fold(function: Callable[..., Conv], *convs: Conv) -> Conv:
    """``function(*convs)``, computed in NumPy."""
    program, result = jax.make_jaxpr(function, return_shape=True)(*convs)
    leaves = _run(program.jaxpr, program.consts, jax.tree.leaves(convs))
    return jax.tree.unflatten(jax.tree.structure(result), leaves)


def operations(function: Callable[..., Any], *args: Any) -> list[str]:
    """Names of the operations of a program, calls opened."""
    return _names(jax.make_jaxpr(function)(*args).jaxpr)


def _names(jaxpr: Any) -> list[str]:
    names = []
    for equation in jaxpr.eqns:
        inner = equation.params.get("jaxpr")
        names += [equation.primitive.name] if inner is None else _names(inner.jaxpr)
    return names


def _run(jaxpr: Any, consts: list[Any], arguments: list[Any]) -> list[np.ndarray]:
    values = dict(zip(jaxpr.constvars, map(np.asarray, consts), strict=True))
    values |= zip(jaxpr.invars, map(np.asarray, arguments), strict=True)

    def read(atom: Any) -> np.ndarray:
        return np.asarray(atom.val) if hasattr(atom, "val") else values[atom]

    for equation in jaxpr.eqns:
        operands = [read(atom) for atom in equation.invars]
        inner = equation.params.get("jaxpr")
        if inner is not None:
            results = _run(inner.jaxpr, inner.consts, operands)
        else:
            results = [_OPERATIONS[equation.primitive.name](equation.params, *operands)]
        for variable, result in zip(equation.outvars, results, strict=True):
            assert result.shape == variable.aval.shape, equation
            assert result.dtype == variable.aval.dtype, equation
            values[variable] = result
    return [read(atom) for atom in jaxpr.outvars]


def _dot_general(params: dict[str, Any], left: np.ndarray, right: np.ndarray) -> np.ndarray:
    (contract_l, contract_r), (batch_l, batch_r) = params["dimension_numbers"]
    assert params["precision"] == (jax.lax.Precision.HIGHEST,) * 2, params
    labels_l, labels_r = list(range(left.ndim)), [left.ndim + n for n in range(right.ndim)]
    for one, two in zip((*contract_l, *batch_l), (*contract_r, *batch_r), strict=True):
        labels_r[two] = labels_l[one]
    out = [labels_l[n] for n in batch_l]
    out += [n for n in range(left.ndim) if n not in (*contract_l, *batch_l)]
    out += [labels_r[n] for n in range(right.ndim) if n not in (*contract_r, *batch_r)]
    return np.einsum(left, labels_l, right, labels_r, out)


def _pad(params: dict[str, Any], array: np.ndarray, fill: np.ndarray) -> np.ndarray:
    config = params["padding_config"]
    assert all(low >= 0 and high >= 0 for low, high, _ in config), "a fold must lose no tap"
    spread = [
        slice(low, low + (n - 1) * (interior + 1) + 1, interior + 1)
        for n, (low, _, interior) in zip(array.shape, config, strict=True)
    ]
    shape = [s.stop + high for s, (_, high, _) in zip(spread, config, strict=True)]
    padded = np.full(shape, fill)
    padded[tuple(spread)] = array
    return padded


def _broadcast_in_dim(params: dict[str, Any], array: np.ndarray) -> np.ndarray:
    shape = [1] * len(params["shape"])
    for number, axis in enumerate(params["broadcast_dimensions"]):
        shape[axis] = array.shape[number]
    return np.broadcast_to(array.reshape(shape), params["shape"])


def _iota(params: dict[str, Any]) -> np.ndarray:
    axis, shape = params["dimension"], params["shape"]
    column = [-1 if n == axis else 1 for n in range(len(shape))]
    values = np.arange(shape[axis], dtype=params["dtype"])
    return np.broadcast_to(values.reshape(column), shape)


def _slice(params: dict[str, Any], array: np.ndarray) -> np.ndarray:
    steps = params["strides"] or (1,) * array.ndim
    bounds = zip(params["start_indices"], params["limit_indices"], steps, strict=True)
    return array[tuple(slice(*bound) for bound in bounds)]


def _dynamic_slice(params: dict[str, Any], array: np.ndarray, *starts: np.ndarray) -> np.ndarray:
    spans = zip(starts, params["slice_sizes"], strict=True)
    return array[tuple(slice(int(start), int(start) + n) for start, n in spans)]


def _gather(params: dict[str, Any], array: np.ndarray, places: np.ndarray) -> np.ndarray:
    (axis,) = params["dimension_numbers"].start_index_map  # rows of one axis, as `jnp.take` does
    assert params["dimension_numbers"].collapsed_slice_dims == (axis,), params
    return np.take(array, places[:, 0], axis)


_OPERATIONS: dict[str, Callable[..., np.ndarray]] = {
    "add": lambda params, a, b: a + b,
    "broadcast_in_dim": _broadcast_in_dim,
    "concatenate": lambda params, *parts: np.concatenate(parts, params["dimension"]),
    "convert_element_type": lambda params, a: a.astype(params["new_dtype"]),
    "dot_general": _dot_general,
    "dynamic_slice": _dynamic_slice,
    "eq": lambda params, a, b: np.equal(a, b),
    "gather": _gather,
    "iota": _iota,
    "lt": lambda params, a, b: np.less(a, b),
    "pad": _pad,
    "reduce_sum": lambda params, a: np.asarray(a.sum(params["axes"])),
    "reshape": lambda params, a: a.reshape(params["new_sizes"]),
    "select_n": lambda params, which, *cases: np.where(which, cases[1], cases[0]),
    "slice": _slice,
    "squeeze": lambda params, a: a.squeeze(params["dimensions"]),
    "transpose": lambda params, a: a.transpose(params["permutation"]),
}
