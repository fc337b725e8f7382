"""`load`: the arrays of a PyTorch state dict as variables, with one report of all problems."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util

from repjax.torch import files
from repjax.torch.arrays import ArrayError, to_ours
from repjax.torch.explain import explain
from repjax.torch.fit import ArrayPath, Fit, best_fit, flat, inputs_of, is_head
from repjax.torch.folds import FoldError
from repjax.torch.names import Names
from repjax.torch.wrappers import unwrap
from repjax.trees import fuse_params

LOG = logging.getLogger("repjax.torch")


class StateDictError(ValueError):
    """A state dict that does not fit a model.

    Args:
        message: sums up what is wrong.
        problems: every name that is wrong, one line each.
    """

    def __init__(self, message: str, problems: list[str]) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


@dataclasses.dataclass(frozen=True)
class Loaded:
    """Variables, and what was found on the way to them.

    Args:
        variables: those of the model, or of its deploy twin.
        naming: of the state dict.
        deployed: whether the state dict was in deploy form.
        arrays: how many of its arrays were read.
        unwrapped: what was around it, in words; empty where nothing was.
    """

    variables: dict[str, Any]
    naming: str
    deployed: bool
    arrays: int
    unwrapped: str

    def __str__(self) -> str:
        form = "deploy" if self.deployed else "train"
        taken = f"; taken out of {self.unwrapped}" if self.unwrapped else ""
        return f"{form} form, {self.naming} naming, {self.arrays} arrays{taken}"


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
    model's parameter dtype; `num_batches_tracked` is left out. What training scripts put
    around a state dict (`{"state_dict": ...}`, `module.`, moving averages) is taken off, which
    the logger `repjax.torch` says; with a warning where another state dict was left aside.

    Args:
        model: a network of `repjax.models`, or a block with a naming in `repjax.torch`.
        state_dict: names to arrays (anything `numpy.asarray` takes, torch tensors on the
            CPU too), or the path of a `.safetensors` or `.npz` file.
        naming: "original", "timm", ...; None tries all that the family has.
        inputs: what the model is applied to, shapes are enough; networks need none.
        new_head: a random key: the state's head is left out, whatever its number of
            classes, and the model's is initialized.

    Returns:
        Variables of `model`; for a state in deploy form, of `model.deploy()`. A state in
        train form is fused for a model that is deployed.

    Raises:
        StateDictError: names are missing, unexpected, of another shape, or hold integers or
            numbers that are not finite. The message sums them up and names the option that
            helps, `problems` has them all.
        ValueError: the naming is unknown, or the file is damaged or in neither of the two formats.
        TypeError: `model` is no model, or `state_dict` is no state dict.

    Example:
        >>> import numpy as np
        >>> from repjax.blocks import RepVGGBlock
        >>> model = RepVGGBlock(4, deployed=True)
        >>> state = {"rbr_reparam.weight": np.ones((4, 2, 3, 3)), "rbr_reparam.bias": np.ones(4)}
        >>> variables = load(model, state, inputs=jax.ShapeDtypeStruct((1, 8, 8, 2), jnp.float32))
        >>> variables["params"]["conv"]["kernel"].shape
        (3, 3, 2, 4)
    """
    return convert(model, state_dict, naming=naming, inputs=inputs, new_head=new_head).variables


def convert(
    model: nn.Module,
    state_dict: Mapping[str, Any] | str | Path,
    *,
    naming: str | None = None,
    inputs: Any = None,
    new_head: jax.Array | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Loaded:
    """As `load`, with what was found on the way.

    Args:
        model: see `load`.
        state_dict: see `load`.
        naming: see `load`.
        inputs: see `load`.
        new_head: see `load`.
        progress: called with the bytes that were converted and those of all arrays.

    Returns:
        The variables, the form and naming of the state dict, and what was around it.

    Raises:
        StateDictError: see `load`.
        ValueError: see `load`.
        TypeError: see `load`.

    Example:
        >>> import numpy as np
        >>> from repjax.blocks import RepVGGBlock
        >>> state = {"rbr_reparam.weight": np.ones((4, 2, 3, 3)), "rbr_reparam.bias": np.ones(4)}
        >>> wrapped = {"state_dict": {f"module.{name}": state[name] for name in state}}
        >>> x = jax.ShapeDtypeStruct((1, 8, 8, 2), jnp.float32)
        >>> print(convert(RepVGGBlock(4), wrapped, inputs=x))
        deploy form, original naming, 2 arrays; taken out of entry 'state_dict', prefix 'module.'
    """
    _check(model, inputs, new_head)
    state = files.read(state_dict) if isinstance(state_dict, str | Path) else state_dict
    checkpoint = unwrap(state)
    if inputs is None:
        inputs = inputs_of(model)
    fit = best_fit(model, checkpoint, naming, inputs, without_head=new_head is not None)
    loaded, problems = _read(fit, progress)
    if problems:
        raise StateDictError(explain(model, fit, problems, inputs), problems)
    taken = fit.checkpoint.words
    if taken:
        LOG.log(
            logging.WARNING if fit.checkpoint.left else logging.INFO,
            "the state dict was taken out of %s",
            taken,
        )
    arrays = len(loaded)
    if new_head is not None:
        target = model.clone(deployed=fit.deployed) if hasattr(model, "deployed") else model
        loaded |= _new_head(target, fit.names, inputs, new_head)
    variables: dict[str, Any] = traverse_util.unflatten_dict(loaded)  # type: ignore[no-untyped-call]
    if getattr(model, "deployed", False) and not fit.deployed:
        variables = fuse_params(variables)
    return Loaded(variables, fit.naming, fit.deployed, arrays, taken)


def _check(model: Any, inputs: Any, new_head: Any) -> None:
    if not isinstance(model, nn.Module):
        found = f"the class {model.__name__}" if isinstance(model, type) else _brief(model)
        raise TypeError(
            f"model: expected a network, such as repjax.models.create('repvgg_a0'), or a block, "
            f"found {found}"
        )
    if not all(hasattr(leaf, "shape") for leaf in jax.tree.leaves(inputs)):
        raise TypeError(
            "inputs: expected an array or jax.ShapeDtypeStruct((1, height, width, channels), "
            f"jnp.float32), found {_brief(inputs)}"
        )
    if new_head is not None and not _is_key(new_head):
        raise TypeError(
            f"new_head: expected a random key such as jax.random.key(0), found {_brief(new_head)}"
        )


def _brief(value: Any) -> str:
    return " ".join(repr(value).split())[:60]


def _is_key(value: Any) -> bool:
    if not isinstance(value, jax.Array):
        return False
    typed = jnp.issubdtype(value.dtype, jax.dtypes.prng_key) and value.shape == ()
    return typed or (value.dtype == jnp.uint32 and value.ndim == 1)


def _read(
    fit: Fit, progress: Callable[[int, int], None]
) -> tuple[dict[ArrayPath, jax.Array], list[str]]:
    """The arrays that fit, and the problems of all others."""
    problems = [f"{name}: missing" for name in fit.missing]
    problems += [f"{name}: unexpected" for name in fit.unexpected]
    loaded: dict[ArrayPath, jax.Array] = {}
    total = sum(wanted.size * wanted.dtype.itemsize for wanted in fit.template.values())
    done = 0
    for path, wanted in fit.template.items():
        key = fit.keys[path]
        if key is not None and key in fit.state:
            try:
                loaded[path] = to_ours(fit.state[key], path[-1], wanted)
            except ArrayError as error:
                problems.append(f"{key}: {error}")
            except FoldError as error:
                problems.append(str(error))
        done += wanted.size * wanted.dtype.itemsize
        progress(done, total)
    return loaded, list(dict.fromkeys(problems))


def _new_head(model: nn.Module, names: Names, inputs: Any, key: jax.Array) -> dict[ArrayPath, Any]:
    def init(key: jax.Array) -> dict[ArrayPath, Any]:
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), inputs)
        leaves = flat(model.init(key, zeros))
        return {path: leaf for path, leaf in leaves.items() if is_head(names, path)}

    # the compiler drops what does not lead to the head, so that no other array is made
    head: dict[ArrayPath, Any] = jax.jit(init)(key)
    return head
