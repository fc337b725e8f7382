"""How branches run in NNX: their arrays are variables of a module, their norms Linen's."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from repjax.blocks.linen_scope import Settings
from repjax.branches import Branch, Geometry, NormRequest, Request


@nnx.register_variable_name("fixed", overwrite=True)
class Fixed(nnx.Variable[jax.Array]):
    """An array that is never trained: edge masks, cosines, means.

    The collection `fixed` of Linen, also through `flax.nnx.bridge`.

    Example:
        >>> from repjax.branches import Fixed as Mask, Pointwise, Sequence
        >>> from repjax.nnx import RepConv
        >>> branches = (Sequence(Pointwise(), Mask("sobelx")),)
        >>> block = RepConv(2, 2, branches, norm=None, rngs=nnx.Rngs(0))
        >>> jax.tree.leaves(nnx.state(block, Fixed))[0].shape
        (3, 3, 1, 2)
    """


KINDS: dict[str, type[nnx.Variable[jax.Array]]] = {
    "mean": nnx.BatchStat,
    "var": nnx.BatchStat,
    "mask": Fixed,
}


class NNXScope:
    """What a branch finds in an NNX module: see `repjax.branches.Scope`."""

    def __init__(self, node: nnx.Module, settings: Settings) -> None:
        self.node = node
        self.settings = settings
        self.precision = settings.precision

    def leaf(self, name: str, request: Request) -> jax.Array:
        """The array of that name."""
        leaf: jax.Array = getattr(self.node, name)[...]
        return leaf

    def gather(self, requests: Mapping[str, Any]) -> dict[str, Any]:
        """Several arrays at once, those of nodes inside too."""
        return {
            name: self.leaf(name, request)
            if isinstance(request, Request)
            else NNXScope(getattr(self.node, name), self.settings).gather(request)
            for name, request in requests.items()
        }

    def promote(self, *arrays: jax.Array | None) -> tuple[Any, ...]:
        """Arrays in the compute type."""
        return self.settings.promote(*arrays)

    def normalize(self, x: jax.Array, norm: NormRequest, mask: jax.Array | None) -> jax.Array:
        """Linen's batch norm on the arrays of the node `norm`; running statistics are updated."""
        node: nnx.Dict[Any] = getattr(self.node, "norm")  # noqa: B009
        arrays = {name: node[name] for name in norm.arrays(x.shape[-1])}
        statistics = {name: arrays.pop(name) for name in ("mean", "var")}
        variables = {
            "params": {name: leaf[...] for name, leaf in arrays.items()},
            "batch_stats": {name: leaf[...] for name, leaf in statistics.items()},
        }
        layer, train = self.settings.norm(norm, parent=None), self.settings.train
        applied: Any = layer.apply(
            variables, x, mask=mask if train else None, mutable=["batch_stats"] if train else []
        )
        y: jax.Array = applied[0]
        for name, leaf in statistics.items() if train else ():
            leaf[...] = jax.lax.stop_gradient(applied[1]["batch_stats"][name])
        return y

    def run(self, branch: Branch, name: str, x: jax.Array, geometry: Geometry) -> jax.Array:
        """Another branch, in the node of that name."""
        return branch.apply(NNXScope(getattr(self.node, name), self.settings), x, geometry)


def initialize(
    node: nnx.Module, requests: Mapping[str, Any], settings: Settings, rngs: nnx.Rngs
) -> None:
    """Give a module the variables that a branch asks for.

    Args:
        node: gets them as attributes, nodes inside as `nnx.Dict`.
        requests: of the branch, see `repjax.branches.asking`.
        settings: of the block: types, and how arrays start that say nothing themselves.
        rngs: the stream `params` gives a key for each parameter.
    """
    for name, request in requests.items():
        if isinstance(request, Request):
            setattr(node, name, _variable(name, request, settings, rngs))
            continue
        inside: nnx.Dict[Any] = nnx.Dict()
        initialize(inside, request, _of_norm(settings) if name == "norm" else settings, rngs)
        setattr(node, name, inside)


def _variable(
    name: str, request: Request, settings: Settings, rngs: nnx.Rngs
) -> nnx.Variable[jax.Array]:
    kind = KINDS.get(name, nnx.Param)
    dtype = settings.param_dtype
    if kind is nnx.BatchStat:
        dtype = jnp.float64 if jnp.dtype(dtype) == jnp.float64 else jnp.float32
    key: Any = rngs.params() if kind is nnx.Param else None
    return kind(settings.initializer(name, request)(key, request.shape, dtype))


def _of_norm(settings: Settings) -> Settings:
    return dataclasses.replace(settings, scale_init=settings.norm_scale_init)
