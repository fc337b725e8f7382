"""Folding one block on its arrays: compiled once for all blocks of the same shapes."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax

from repjax.branches import Branch
from repjax.branches.branch import get
from repjax.sharding import keep, sharding_of
from repjax.trees.problems import CheckedBlock


def fold(block: CheckedBlock) -> tuple[jax.Array, jax.Array | None]:
    """Kernel and bias of the one convolution that a block is in inference.

    Both have the type and sharding of the block's largest kernel between the same channels.
    """
    arrays = block.node.arrays
    features = block.features
    shapes = [(*block.taps, block.inputs // block.groups, features), (features,)]
    kernels = [get(arrays, *path) for path in block.branch.leaves() if path[-1] == "kernel"]
    main = max(kernels, key=lambda leaf: (leaf.shape[-2:] == shapes[0][-2:], leaf.size))
    dtype = jax.dtypes.canonicalize_dtype(main.dtype)
    run = functools.partial(_fold, block.branch, block.inputs, block.groups, block.dims, dtype)
    shardings = [sharding_of(main, shape) for shape in shapes[: 1 + block.branch.has_bias]]
    kernel, *bias = keep(run, shardings, arrays)
    return kernel, bias[0] if bias else None


# Inlined under an outer jit, one program for all blocks of the same shapes outside of it.
@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4), inline=True)
def _fold(
    branch: Branch, inputs: int, groups: int, dims: int, dtype: Any, arrays: Mapping[str, Any]
) -> list[jax.Array]:
    conv = branch.fold(arrays, inputs, groups, dims).astype(dtype)
    return [conv.kernel] if conv.bias is None else [conv.kernel, conv.bias]
