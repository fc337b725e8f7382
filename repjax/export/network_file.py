"""Networks of `repjax.models` in files: `safetensors` writes them, `load` reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from repjax._files import FileError, check_target
from repjax.models.described import created, described
from repjax.models.network import Network
from repjax.torch import files
from repjax.torch.fit import ArrayPath, differences, flat, inputs_of, template_of
from repjax.torch.stored import Arrays

FORMAT = "repjax network"
VERSION = 1
NAME = "repjax"
"""Under which the network stands in a file's metadata."""
SHOWN = 8


def safetensors(
    path: str | Path, model: Network, variables: Mapping[str, Any], *, force: bool = False
) -> None:
    """Write variables with what makes their network again, which `repjax.load` reads.

    The arrays are named by their paths, joined by "/"; the name of the network and what it
    was overridden with stand as JSON in the file's metadata. It counts as written once it was
    read back with every array the same.

    Args:
        path: path of the file, `.safetensors`.
        model: a network of `repjax.models.create`, usually ``model.deploy()``.
        variables: its variables, for `deploy()` those that `repjax.fuse_params` makes.
        force: replace a file that is there already.

    Raises:
        FileExistsError: the file exists, and `force` is false.
        OSError: it cannot be written.
        TypeError: `model` is no network of `repjax.models`.
        ValueError: a field of the network is a function; or the variables are not its own, all
            differences are listed.
        ModuleNotFoundError: the safetensors library is missing.

    Example:
        >>> import jax, tempfile, repjax
        >>> model = repjax.models.create("repvgg_a0", depths=(1, 1, 1, 1), widths=(8, 8, 8, 8))
        >>> variables = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, 32, 32, 3)))
        >>> variables = jax.tree.map(lambda one: jnp.ones(one.shape), variables)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "network.safetensors")
        ...     safetensors(path, model.deploy(), repjax.fuse_params(variables))
        ...     load(path)[0].num_classes
        1000
    """
    path = Path(path)
    check_target(path, force=force)
    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: the suffix is .safetensors, found {path.suffix or 'none'}")
    name, overrides = described(model)
    arrays = {place: np.asarray(leaf) for place, leaf in flat(variables).items()}
    problems = _problems(model, arrays)
    if problems:
        other = model.clone(deployed=not model.deployed)
        form = "deploy" if other.deployed else "train"
        hint = "" if _problems(other, arrays) else f"they are of its {form} form, pass that; "
        raise ValueError(f"{path}: the variables are not of this network: {hint}{_list(problems)}")

    def check(read: Arrays) -> None:
        again, found = _network(read, path)
        if again != model or found.keys() != arrays.keys():
            raise ValueError(f"{path}: is not written, another network was read back")
        for place, array in arrays.items():
            if found[place].dtype != array.dtype or found[place].tobytes() != array.tobytes():
                raise OSError(f"{path}: is not written, {'/'.join(place)} was not read back as is")

    about = {"format": FORMAT, "version": VERSION, "network": name, "overrides": overrides}
    files.write(
        path,
        {"/".join(place): array for place, array in arrays.items()},
        force=force,
        metadata={NAME: json.dumps(about)},
        check=check,
    )


def load(path: str | Path) -> tuple[Network, dict[str, Any]]:
    """A network and its variables, from a file of `repjax.export.safetensors`.

    Args:
        path: path of the file.

    Returns:
        The module, in the form that was written, and its variables.

    Raises:
        FileError: the file is damaged or of another kind, names a network or a field that
            this version does not know, or lacks arrays of its network.
        OSError: it cannot be opened.
        ModuleNotFoundError: the safetensors library is missing.

    Example:
        >>> import repjax
        >>> model, variables = load("network.safetensors")  # doctest: +SKIP
        >>> logits = jax.jit(model.apply)(variables, images)  # doctest: +SKIP
    """
    read = files.read(path)
    if read.path.suffix != ".safetensors":
        raise FileError(f"{path}: a network is read from .safetensors, found {read.path.suffix}")
    model, arrays = _network(read, read.path)
    nested: dict[str, Any] = traverse_util.unflatten_dict(  # type: ignore[no-untyped-call]
        {place: jnp.asarray(array) for place, array in arrays.items()}
    )
    return model, nested


def is_network(read: Arrays) -> bool:
    """Whether a file names the network that its arrays are of."""
    return NAME in read.metadata


def _network(read: Arrays, path: Path) -> tuple[Network, dict[ArrayPath, Any]]:
    """The network of a file, and its arrays; `path` is for messages.

    Raises:
        FileError: the file is of another kind, or lacks arrays of its network.
    """
    about = _about(read, path)
    try:
        model = created(about["network"], about["overrides"])
    except (KeyError, TypeError, ValueError) as error:
        raise FileError(f"{path}: its network cannot be made here: {error}") from error
    arrays = {tuple(name.split("/")): array for name, array in read.items()}
    problems = _problems(model, arrays)
    if problems:
        raise FileError(f"{path}: is not whole: {_list(problems)}")
    return model, arrays


def _about(read: Arrays, path: Path) -> dict[str, Any]:
    if not is_network(read):
        raise FileError(
            f"{path}: holds arrays and no network; repjax.torch.read gives the arrays, "
            "repjax.torch.load takes a state dict of PyTorch"
        )
    try:
        about: dict[str, Any] = json.loads(read.metadata[NAME])
        kind, version = about["format"], int(about["version"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise FileError(f"{path}: its metadata are damaged: {error}") from error
    if kind != FORMAT or version > VERSION:
        raise FileError(
            f"{path}: is {kind} of version {version}, this repjax reads {FORMAT} up to {VERSION}"
        )
    return about


def _problems(model: Network, arrays: Mapping[ArrayPath, Any]) -> list[str]:
    """In which names and shapes arrays differ from the variables of a network."""
    found = differences(arrays, template_of(model, model.deployed, inputs_of(model)))
    return [
        *(f"{'/'.join(place)} is missing" for place in found.missing),
        *(f"{'/'.join(place)} is not expected" for place in found.unexpected),
        *(
            f"{'/'.join(place)} has shape {shape}, expected {wanted}"
            for place, shape, wanted in found.misshapen
        ),
    ]


def _list(problems: list[str]) -> str:
    more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
    return "; ".join([*problems[:SHOWN], *more])
