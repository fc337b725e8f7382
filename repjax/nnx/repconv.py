"""`RepConv` as an NNX module, and what it shares with the other NNX blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import jax
from flax import nnx
from flax.linen.dtypes import promote_dtype
from jax.typing import DTypeLike

from repjax import blocks
from repjax.algebra.padding import padding_pairs
from repjax.blocks.fields import require_short, require_whole
from repjax.branches import Branch, Identity, KxK, Pointwise, equation
from repjax.branches.asking import requests_of
from repjax.nnx.scope import NNXScope, initialize


class RepConv(nnx.Module):
    """A sum of branches when trained, one convolution when deployed.

    ``model.train()`` normalizes with the batch's statistics and updates the running ones,
    ``model.eval()`` or ``nnx.view(model, use_running_average=True)`` is inference, as with
    `nnx.BatchNorm`. Kernels, biases and scales are `nnx.Param`, statistics `nnx.BatchStat`,
    fixed masks `Fixed`; their names and values are those of `repjax.blocks.RepConv`, so that
    trees go from one to the other. `deploy` makes it the one convolution.

    Args:
        in_features: input channels.
        features: output channels.
        branches: what is added up; see `repjax.branches`.
        use_running_average: whether it begins in inference.
        rngs: its stream `params` initializes parameters.
        **fields: all other fields of `repjax.blocks.RepConv`, with its defaults: `norm`,
            `dims`, `strides`, `padding`, `dilation`, `groups`, `epsilon`, `dtype`, ...

    Attributes:
        description: the Linen block of the same fields.

    Raises:
        ValueError: branches that do not fit each other, the channels or the strides.

    Source: Ding et al., RepVGG, CVPR 2021, and the papers named by the branches.

    Example:
        >>> import jax.numpy as jnp
        >>> from repjax.nnx import deploy
        >>> block = RepConv(8, 8, rngs=nnx.Rngs(0))
        >>> block.eval()
        >>> y = block(jnp.ones((1, 9, 9, 8)))
        >>> deployed = deploy(block)
        >>> deployed.kernel.shape
        (3, 3, 8, 8)
        >>> bool(jnp.allclose(deployed(jnp.ones((1, 9, 9, 8))), y, atol=1e-5))
        True
    """

    linen: ClassVar[type[blocks.RepConv]] = blocks.RepConv

    def __init__(
        self,
        in_features: int,
        features: int,
        branches: Sequence[Branch] = (KxK(3), Pointwise(), Identity()),
        *,
        use_running_average: bool = False,
        rngs: nnx.Rngs,
        **fields: Any,
    ) -> None:
        require_whole("in_features", in_features)
        self.in_features = in_features
        self.use_running_average = use_running_average
        self.description = self.linen(features, hashable(branches), **hashable(fields))
        block, branch = self.description, self._branch
        name = equation(branch)
        require_short((name,), branch)
        requests = requests_of(self._running, self._smallest(branch), block.geometry(branch))
        if not block.deployed:
            requests = {name: requests}
        initialize(self, requests, block.settings(train=True), rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply to data (batch..., spatial..., in_features)."""
        block, branch = self.description, self._branch
        block.require_data(branch, x)
        if x.shape[-1] != self.in_features:
            raise ValueError(f"data of {self.in_features} channels expected; found {x.shape}")
        if block.dtype is not None:
            (x,) = promote_dtype(x, dtype=block.dtype)
        settings = block.settings(train=not self.use_running_average)
        node = self if block.deployed else getattr(self, equation(branch))
        return self._running.apply(NNXScope(node, settings), x, block.geometry(branch))

    def set_view(self, use_running_average: bool | None = None) -> None:
        """Used by `nnx.view`.

        Args:
            use_running_average: whether running statistics normalize, not those of the batch.
        """
        if use_running_average is not None:
            self.use_running_average = use_running_average

    @property
    def _branch(self) -> Branch:
        return self.description.branch(self.in_features)

    @property
    def _running(self) -> Branch:
        block = self.description
        return block.fused(self._branch) if block.deployed else self._branch

    def _smallest(self, branch: Branch) -> jax.ShapeDtypeStruct:
        """Data that are large enough for an output."""
        block = self.description
        padding = padding_pairs(block.padding or 0, block.dims)
        pairs = zip(branch.axes(block.dims), block.geometry(branch).dilation, padding, strict=True)
        size = [(axis.last - axis.first) * d + 1 + abs(a) + abs(b) for axis, d, (a, b) in pairs]
        dtype = block.dtype or block.param_dtype
        return abstract((1, *size, self.in_features), dtype)


class ResidualConv(RepConv):
    """``y = conv3x3(x) + conv1x1(x) + x``, convolutions with biases, no norm.

    A `RepConv` with these defaults.

    Source: Ding et al., RepVGG, CVPR 2021, without batch norm.

    Example:
        >>> list(nnx.state(ResidualConv(2, 2, rngs=nnx.Rngs(0))))
        ['y=conv3x3[bias]+conv1x1[bias]+identity']
    """

    linen = blocks.ResidualConv


def abstract(shape: tuple[int, ...], dtype: DTypeLike) -> jax.ShapeDtypeStruct:
    """Data of that shape and type, without values."""
    return jax.ShapeDtypeStruct(shape, dtype)  # type: ignore[no-untyped-call]


def hashable(value: Any) -> Any:
    """A value with tuples for its lists, as a static attribute of a module has to be.

    Example:
        >>> hashable({"strides": [1, 2]})
        {'strides': (1, 2)}
    """
    if isinstance(value, dict):
        return {key: hashable(entry) for key, entry in value.items()}
    return tuple(map(hashable, value)) if isinstance(value, list | tuple) else value
