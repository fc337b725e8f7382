"""Training through the fold: a branch computed as the one convolution it folds to."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from repjax.algebra import Conv
from repjax.algebra.dtypes import common_dtype
from repjax.branches.branch import (
    Branch,
    Geometry,
    Initializer,
    Leaves,
    Request,
    Scope,
    placed,
)
from repjax.branches.norm import Norm
from repjax.branches.wrapper import Wrapper


@dataclasses.dataclass(frozen=True)
class Online(Wrapper):
    """A branch without norms that runs as one convolution while it is trained.

    Its kernels are merged in every step, and gradients flow through the merge, so that
    memory and time are those of one convolution. It computes what the branch computes, has
    its name in the tree and folds like it; only the way to the result differs.

    Args:
        branch: what is merged; no norm inside, whose statistics would need its outputs.

    Source: Hu et al., Online Convolutional Re-parameterization, CVPR 2022.

    Example:
        >>> from repjax.branches import KxK, Pointwise, Sum
        >>> Online(Sum((KxK(3), Pointwise()))).resolve(2, use_bias=False).formula()
        'conv3x3+conv1x1'
    """

    branch: Branch

    def resolve(self, dims: int, *, use_bias: bool) -> Online:
        """This branch with every default written out."""
        inner = self.branch.resolve(dims, use_bias=use_bias)
        if any(isinstance(part, Norm) for part in inner.walk()):
            raise ValueError(f"a norm cannot be merged while it is trained: {inner.formula()}")
        return Online(inner)

    def formula(self) -> str:
        """As the branch inside."""
        return self.branch.formula()

    @property
    def compound(self) -> bool:
        """As the branch inside."""
        return self.branch.compound

    def apply(self, scope: Scope, x: jax.Array, geometry: Geometry) -> jax.Array:
        """The merged kernel on the data."""
        leaves = scope.gather(requests_of(self.branch, x, geometry))
        dtype = common_dtype(*(leaf.dtype for leaf in jax.tree.leaves(leaves)))
        dims = len(geometry.strides)
        conv = self.branch.fold(leaves, x.shape[-1], geometry.groups, dims).astype(dtype)
        x, kernel, bias = scope.promote(x, conv.kernel, conv.bias)
        merged = placed(conv.replace(kernel=kernel, bias=bias), geometry)
        return merged(x, precision=scope.precision)

    def fold(self, leaves: Leaves, inputs: int, groups: int, dims: int) -> Conv:
        """As the branch inside."""
        return self.branch.fold(leaves, inputs, groups, dims)

    def absorb(self, target: Conv, leaves: Leaves, inputs: int, groups: int) -> dict[str, Any]:
        """As the branch inside."""
        return self.branch.absorb(target, leaves, inputs, groups)


def requests_of(branch: Branch, x: Any, geometry: Geometry) -> dict[str, Any]:
    """What a branch asks of its scope when it runs on data like `x`, nodes as mappings."""
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

    def normalize(
        self,
        x: jax.Array,
        epsilon: float,
        scale: bool,
        bias: bool,
        mask: jax.Array | None,
        scale_init: Initializer | None,
    ) -> jax.Array:
        raise TypeError("no norm is merged while it is trained")

    def run(self, branch: Branch, name: str, x: jax.Array, geometry: Geometry) -> jax.Array:
        inner = _Asking()
        self.requests[name] = inner.requests
        return branch.apply(inner, x, geometry)
