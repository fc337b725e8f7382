"""`load`: the arrays of a PyTorch state dict as variables, with one report of all problems."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util

from repjax.torch import files
from repjax.torch.arrays import ArrayError, to_ours
from repjax.torch.fit import ArrayPath, Fit, best_fit, flat, is_head
from repjax.torch.folds import FoldError
from repjax.torch.names import Names
from repjax.trees import fuse_params


class StateDictError(ValueError):
    """A state dict that does not fit a model; every name that is wrong is listed."""


def load(
    model: nn.Module,
    state_dict: Mapping[str, Any] | str | Path,
    *,
    naming: str | None = None,
    inputs: Any = None,
    new_head: jax.Array | None = None,
) -> dict[str, Any]:
    """Turn a PyTorch state dict into variables of a model.

    The form (train or deploy) and the naming are those that fit best; nothing is loaded
    unless all of it fits. float16 and bfloat16 weights are converted, exactly, to the
    model's parameter dtype; `num_batches_tracked` is left out.

    Args:
        model: a network of `repjax.models`, or a block with a naming in `repjax.torch`.
        state_dict: names to arrays (anything `numpy.asarray` takes, torch tensors on the
            CPU too), or the path of a `.safetensors` or `.npz` file.
        naming: "original", "timm", ...; None tries all that the family has.
        inputs: what the model is applied to, shapes are enough; networks need none.
        new_head: a random key: the state's head is left out, whatever its number of
            classes, and the model's is initialised.

    Returns:
        Variables of `model`; for a state in deploy form, of `model.deploy()`. A state in
        train form is fused for a model that is deployed.

    Raises:
        StateDictError: names are missing, unexpected, of another shape, or hold integers or
            numbers that are not finite; one error lists all of them.
        ValueError: an unknown naming, or a file that is neither of the two formats.

    Example:
        >>> import numpy as np
        >>> from repjax.blocks import RepVGGBlock
        >>> model = RepVGGBlock(4, deployed=True)
        >>> state = {"rbr_reparam.weight": np.ones((4, 2, 3, 3)), "rbr_reparam.bias": np.ones(4)}
        >>> variables = load(model, state, inputs=jax.ShapeDtypeStruct((1, 8, 8, 2), jnp.float32))
        >>> variables["params"]["conv"]["kernel"].shape
        (3, 3, 2, 4)
    """
    state = files.read(state_dict) if isinstance(state_dict, str | Path) else state_dict
    if inputs is None:
        inputs = _inputs_of(model)
    fit = best_fit(model, state, naming, inputs, without_head=new_head is not None)
    problems = [f"{name}: missing" for name in fit.missing]
    problems += [f"{name}: unexpected" for name in fit.unexpected]
    loaded: dict[ArrayPath, jax.Array] = {}
    for path, wanted in fit.template.items():
        key = fit.keys[path]
        if key is not None and key in fit.state:
            try:
                loaded[path] = to_ours(fit.state[key], path[-1], wanted)
            except ArrayError as error:
                problems.append(f"{key}: {error}")
            except FoldError as error:
                problems.append(str(error))
    if problems:
        raise StateDictError(_message(model, fit, list(dict.fromkeys(problems))))
    target = model.clone(deployed=fit.deployed) if hasattr(model, "deployed") else model
    if new_head is not None:
        loaded |= _new_head(target, fit.names, inputs, new_head)
    variables: dict[str, Any] = traverse_util.unflatten_dict(loaded)  # type: ignore[no-untyped-call]
    if getattr(model, "deployed", False) and not fit.deployed:
        return fuse_params(variables)
    return variables


def _inputs_of(model: nn.Module) -> jax.ShapeDtypeStruct:
    channels = getattr(model, "in_channels", None)
    if channels is None:
        raise ValueError(
            f"{type(model).__name__} does not know its input; give inputs="
            "jax.ShapeDtypeStruct((1, height, width, channels), jnp.float32)"
        )
    shape = (1, 64, 64, channels)
    return jax.ShapeDtypeStruct(shape, jnp.float32)  # type: ignore[no-untyped-call]


def _new_head(model: nn.Module, names: Names, inputs: Any, key: jax.Array) -> dict[ArrayPath, Any]:
    def init(key: jax.Array) -> dict[ArrayPath, Any]:
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), inputs)
        leaves = flat(model.init(key, zeros))
        return {path: leaf for path, leaf in leaves.items() if is_head(names, path)}

    # the compiler drops what does not lead to the head, so that no other array is made
    head: dict[ArrayPath, Any] = jax.jit(init)(key)
    return head


def _message(model: nn.Module, fit: Fit, problems: list[str]) -> str:
    kind = type(model).__name__
    hint = ""
    if fit.share < 0.1:
        hint = f"; hardly any name is one of {kind}: is this another family?"
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    lines = "\n".join(f"  {problem}" for problem in problems)
    return f"the state dict does not fit {kind}, {count} ({fit.words}){hint}:\n{lines}"
