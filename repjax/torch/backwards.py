"""`to_state_dict`: deploy variables as a state dict, by the tables of names read backwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np

from repjax.torch.arrays import is_kernel, oihw, theirs
from repjax.torch.fit import (
    ArrayPath,
    Template,
    differences,
    flat,
    inputs_of,
    tables_of,
    template_of,
)
from repjax.torch.folds import FoldError
from repjax.torch.kept import behind, in_front
from repjax.torch.names import Names, Shape, matches

Problems = list[str]


def to_state_dict(
    model: nn.Module, variables: Mapping[str, Any], *, naming: str = "timm", inputs: Any = None
) -> dict[str, np.ndarray]:
    """Turn deploy variables into the state dict of the official deploy form.

    Norms and layer scales that the official deploy form keeps, and ours has folded, are there
    again and change nothing, their counters too; a bias that ours has and the official
    convolution has not goes into the norm beside it. What the official form cannot hold is
    refused. `load` brings the same variables back: all arrays exactly, except for a bias that
    went into a norm in front of its map, which agrees to rounding.

    Args:
        model: a network of `repjax.models`, or a block with a naming, in either form.
        variables: those of ``model.deploy()``, as `repjax.fuse_params` makes them.
        naming: "timm", "original", ..., one that the model has.
        inputs: what the model is applied to, shapes are enough; networks need none.

    Returns:
        Names to NumPy arrays, in PyTorch's layout.

    Raises:
        ValueError: the model has no such naming; the variables are not those of its deploy
            form; or a bias has no place in the official one. All problems are listed.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from repjax.blocks import RepVGGBlock
        >>> block, x = RepVGGBlock(4, deployed=True), jnp.ones((1, 8, 8, 2))
        >>> state = to_state_dict(block, block.init(jax.random.key(0), x), inputs=x)
        >>> {name: array.shape for name, array in state.items()}
        {'reparam_conv.bias': (4,), 'reparam_conv.weight': (4, 2, 3, 3)}
    """
    names = tables_of(model, naming)[naming]
    inputs = inputs_of(model) if inputs is None else inputs
    train, deploy = (template_of(model, form, inputs) for form in (False, True))
    arrays = flat(variables)
    _check(model, arrays, train, deploy)
    official = dict(_named(names, train))
    state: dict[str, np.ndarray] = {}
    for path, leaf in arrays.items():
        key = names.key(path[1:])
        if key is None:
            raise ValueError(f"{'/'.join(path)}: has no name in the {naming} naming")
        array = np.asarray(leaf)
        array = oihw(array) if is_kernel(path[-1]) else array
        state[key] = _shaped(array, names.shape(key, path))
    problems = _keep(names, state, official)
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise ValueError(f"the {naming} deploy form cannot hold these variables:\n{listed}")
    return state


def _named(names: Names, train: Template) -> list[tuple[str, Shape]]:
    """Every array of the official train form, with its shape."""
    found = []
    for path, leaf in train.items():
        key = names.key(path[1:])
        if key is not None:
            shape = names.shape(key, path)
            found.append((key, _fill(theirs(path[-1], leaf.shape), shape)))
    return found


def _keep(names: Names, state: dict[str, np.ndarray], official: Mapping[str, Shape]) -> Problems:
    """Add the norms and scales that the official deploy form keeps; what does not fit."""
    problems: Problems = []

    def biased(conv: str) -> bool:  # a convolution that fusing has made always has a bias
        return f"{conv}.bias" in official or f"{conv}.weight" not in official

    for conv, norm in list(matches(state, names.kept_norms, ".weight")):
        if f"{norm}.running_var" in official:
            bias = None if biased(conv) else state.pop(f"{conv}.bias", None)
            state |= behind(norm, state[f"{conv}.weight"], bias, names.epsilon)
    for scale, conv in matches(official, names.kept_scales, ""):
        if f"{conv}.weight" in state:
            state[scale] = np.ones(official[scale], state[f"{conv}.weight"].dtype)
    for norm, conv in matches(official, names.norms_in_front, ".running_var"):
        if f"{conv}.weight" in state:
            bias = None if biased(conv) else state.pop(f"{conv}.bias", None)
            try:
                state |= in_front(norm, conv, state[f"{conv}.weight"], bias, names.epsilon)
            except FoldError as error:
                problems.append(str(error))
    return problems


def _check(
    model: nn.Module, arrays: Mapping[ArrayPath, Any], train: Template, deploy: Template
) -> None:
    """Refuse variables of another form, network or size.

    Raises:
        ValueError: of these.
    """
    if arrays.keys() == train.keys() != deploy.keys():
        raise ValueError(
            f"the variables are those of the train form of {type(model).__name__}; give "
            "repjax.fuse_params(variables)"
        )
    found = differences(arrays, deploy)
    problems = [f"{'/'.join(path)}: missing" for path in found.missing]
    problems += [f"{'/'.join(path)}: unexpected" for path in found.unexpected]
    problems += [
        f"{'/'.join(path)}: has shape {shape}, expected {wanted}"
        for path, shape, wanted in found.misshapen
    ]
    if problems:
        shown = "\n".join(f"  {problem}" for problem in problems[:10])
        more = f"\n  and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise ValueError(f"no variables of {type(model).__name__}'s deploy form:\n{shown}{more}")


def _shaped(array: np.ndarray, shape: Shape | None) -> np.ndarray:
    return array.reshape(_fill(array.shape, shape))


def _fill(ours: tuple[int, ...], shape: Shape | None) -> tuple[int, ...]:
    """An official shape, with our sizes where it has 0.

    Example:
        >>> _fill((8, 4, 1, 1), (0, 0)), _fill((8,), (1, 1, 1, 0)), _fill((8,), None)
        ((8, 4), (1, 1, 1, 8), (8,))
    """
    sizes = iter(ours)
    return ours if shape is None else tuple(size or next(sizes) for size in shape)
