"""Training through the fold: a branch computed as the one convolution it folds to."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from repjax.algebra import Conv
from repjax.algebra.dtypes import common_dtype
from repjax.branches.asking import requests_of
from repjax.branches.branch import Branch, Geometry, Leaves, Scope, placed
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

    Raises:
        ValueError: the branch holds a norm.

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
