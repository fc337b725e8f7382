"""What a branch asks of its scope: the arrays it needs, found without any."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from repjax.algebra.dtypes import common_dtype
from repjax.branches.branch import Branch, Geometry, NormRequest, Request


def requests_of(branch: Branch, x: Any, geometry: Geometry) -> dict[str, Any]:
    """The requests of a branch that runs on such data, in the nodes of its tree.

    Args:
        branch: a resolved one.
        x: data (batch..., spatial..., channels), abstract or not.
        geometry: where the branch sits.
    """
    asking = _Asking()
    jax.eval_shape(lambda x: branch.apply(asking, x, geometry), x)
    return asking.requests


class _Asking:
    """A scope that only writes down what is asked of it, for abstract data."""

    precision = None

    def __init__(self) -> None:
        self.requests: dict[str, Any] = {}

    def leaf(self, name: str, request: Request) -> jax.Array:
        self.requests[name] = request
        return jnp.zeros(request.shape)

    def gather(self, requests: Mapping[str, Any]) -> dict[str, Any]:
        self.requests |= requests
        zeros: dict[str, Any] = jax.tree.map(
            lambda request: jnp.zeros(request.shape),
            dict(requests),
            is_leaf=lambda node: isinstance(node, Request),
        )
        return zeros

    def promote(self, *arrays: jax.Array | None) -> tuple[Any, ...]:
        dtype = common_dtype(*(array.dtype for array in arrays if array is not None))
        return tuple(None if array is None else array.astype(dtype) for array in arrays)

    def normalize(self, x: jax.Array, norm: NormRequest, mask: jax.Array | None) -> jax.Array:
        self.requests["norm"] = norm.arrays(x.shape[-1])
        return x

    def run(self, branch: Branch, name: str, x: jax.Array, geometry: Geometry) -> jax.Array:
        inner = _Asking()
        self.requests[name] = inner.requests
        return branch.apply(inner, x, geometry)
