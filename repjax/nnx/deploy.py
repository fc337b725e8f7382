"""`deploy`: an NNX module in which every block is the single convolution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import jax
from flax import nnx

from repjax.nnx.repconv import RepConv
from repjax.trees import fuse_params

Model = TypeVar("Model", bound=nnx.Module)


def deploy(model: Model) -> Model:
    """A new module in which every block is the single convolution; the given one is untouched.

    Blocks are found wherever the module holds them: in other modules, lists, dicts; one that
    is used twice is fused once and still shared. So are the Linen blocks and networks of this
    library inside `nnx.bridge.ToNNX`. Arrays outside of blocks are the same, in new variables.
    Works under `nnx.jit`, and on abstract models (`nnx.eval_shape`).

    Args:
        model: any `nnx.Module`.

    Returns:
        A module of the same class, in the same mode.

    Raises:
        TypeError: it is no `nnx.Module`.
        MalformedTreeError: statistics that are not finite, or negative variances.

    Example:
        >>> import repjax.nnx
        >>> wide = nnx.List([repjax.nnx.RepVGGBlock(4, 4, rngs=nnx.Rngs(0))] * 2)
        >>> slim = deploy(wide)
        >>> jax.tree.map(jax.numpy.shape, nnx.to_pure_dict(nnx.state(slim)))
        {0: {'conv': {'bias': (4,), 'kernel': (3, 3, 4, 4)}}}
    """
    if not isinstance(model, nnx.Module):
        raise TypeError(
            f"deploy takes an nnx.Module, found {type(model).__name__}; variables trees and states "
            "go through repjax.fuse_params"
        )
    deployed = nnx.clone(model)
    for _, node in list(nnx.iter_graph(deployed)):
        if isinstance(node, RepConv):
            _fuse(node)
            node.description = node.description.deploy()
        elif isinstance(node, nnx.bridge.ToNNX) and hasattr(node.to_nnx__module, "deploy"):
            _fuse(node)
            node.to_nnx__module = node.to_nnx__module.deploy()
    return deployed


def _fuse(node: nnx.Module) -> None:
    """Replace the variables of a module by those of its deploy form."""
    state = nnx.state(node)
    own = nnx.State({name: state[name] for name in state if not str(name).startswith("to_nnx__")})
    abstract = any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(own))
    fused = jax.eval_shape(fuse_params, own) if abstract else fuse_params(own)
    for name in own:
        delattr(node, name)
    for name, value in fused.items():
        setattr(node, name, nnx.data(_dicts(value)))


def _dicts(node: Any) -> Any:
    return {k: _dicts(v) for k, v in node.items()} if isinstance(node, Mapping) else node
