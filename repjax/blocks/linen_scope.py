"""How branches run in Linen: their arrays, norms and child branches as nodes of a module."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
from flax.linen.dtypes import promote_dtype
from jax import lax
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike

from repjax.blocks.batch_norm import batch_norm
from repjax.branches import Branch, Geometry, NormRequest, Request


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the arrays and norms of a block have in common.

    Args:
        train: whether norms use the batch's statistics and update the running ones.
        momentum: of the running statistics.
        axis_name: mapped axis over which batch statistics are averaged.
        dtype: compute type; None promotes.
        param_dtype: type of the parameters.
        precision: of the products.
        kernel_init: initializer of kernels.
        bias_init: initializer of biases.
        scale_init: initializer of trained scales.
        norm_scale_init: initializer of the norms' scales.
    """

    train: bool
    momentum: float
    axis_name: str | None
    dtype: DTypeLike | None
    param_dtype: DTypeLike
    precision: lax.PrecisionLike
    kernel_init: Initializer
    bias_init: Initializer
    scale_init: Initializer
    norm_scale_init: Initializer

    def initializer(self, name: str, request: Request) -> Initializer:
        """How the array of that name is initialized, where its branch leaves it to the block."""
        initializers = {
            "kernel": self.kernel_init,
            "bias": self.bias_init,
            "scale": self.scale_init,
        }
        return request.init or initializers[name]

    def promote(self, *arrays: jax.Array | None) -> tuple[Any, ...]:
        """Arrays in the compute type."""
        return tuple(promote_dtype(*arrays, dtype=self.dtype))

    def norm(self, request: NormRequest, **fields: Any) -> nn.BatchNorm:
        """The batch norm that a branch asks for."""
        return batch_norm(
            self.train,
            momentum=self.momentum,
            axis_name=self.axis_name,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            epsilon=request.epsilon,
            use_scale=request.scale,
            use_bias=request.bias,
            scale_init=request.scale_init or self.norm_scale_init,
            **fields,
        )


class BranchNode(nn.Module):
    """The node of one branch in the tree.

    Args:
        branch_: the branch, resolved.
        settings: those of its block.
    """

    branch_: Branch
    settings: Settings

    @nn.compact
    def __call__(self, x: jax.Array, geometry: Geometry) -> jax.Array:
        """Run the branch on data."""
        return self.branch_.apply(LinenScope(self, self.settings), x, geometry)


class _Gathered(nn.Module):
    """A node whose arrays are read without running its branch."""

    requests: Mapping[str, Any]
    settings: Settings

    @nn.compact
    def __call__(self) -> dict[str, Any]:
        return LinenScope(self, self.settings).gather(self.requests)


class LinenScope:
    """The `repjax.branches.Scope` of a compact Linen module."""

    def __init__(self, module: nn.Module, settings: Settings) -> None:
        self.module = module
        self.settings = settings
        self.precision = settings.precision

    def leaf(self, name: str, request: Request) -> jax.Array:
        """The array of that name, a parameter unless it is never trained."""
        shape, dtype = request.shape, self.settings.param_dtype
        leaf: jax.Array
        if request.fixed:
            assert request.init is not None
            leaf = self.module.variable("fixed", name, request.init, None, shape, dtype).value
            return leaf
        leaf = self.module.param(name, self.settings.initializer(name, request), shape, dtype)
        return leaf

    def gather(self, requests: Mapping[str, Any]) -> dict[str, Any]:
        """Several arrays at once, including those of child nodes."""
        return {
            name: self.leaf(name, request)
            if isinstance(request, Request)
            else _Gathered(request, self.settings, name=name)()
            for name, request in requests.items()
        }

    def promote(self, *arrays: jax.Array | None) -> tuple[Any, ...]:
        """Arrays in the compute type."""
        return self.settings.promote(*arrays)

    def normalize(self, x: jax.Array, norm: NormRequest, mask: jax.Array | None) -> jax.Array:
        """Batch norm in the node `norm`, statistics of the masked positions only."""
        layer = self.settings.norm(norm, name="norm")
        y: jax.Array = layer(x, mask=mask if self.settings.train else None)
        return y

    def run(self, branch: Branch, name: str, x: jax.Array, geometry: Geometry) -> jax.Array:
        """Another branch, in the node of that name."""
        y: jax.Array = BranchNode(branch, self.settings, name=name)(x, geometry)
        return y
