"""Networks of `repjax.models` in files: `safetensors` writes them, `load` reads them."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from repjax._files import FileError, check_target, replacing
from repjax.models.described import created, described
from repjax.models.network import Network
from repjax.torch import files

FORMAT = "repjax network"
VERSION = 1
SHOWN = 8

Arrays = dict[str, np.ndarray[Any, Any]]


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
        >>> import tempfile, repjax
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
    arrays: Arrays = {key: np.asarray(leaf) for key, leaf in _flat(variables).items()}
    problems = _differences(model, arrays)
    if problems:
        other = model.clone(deployed=not model.deployed)
        form = "deploy" if other.deployed else "train"
        hint = "" if _differences(other, arrays) else f"they are of its {form} form, pass that; "
        raise ValueError(f"{path}: the variables are not of this network: {hint}{_list(problems)}")
    about = {"format": FORMAT, "version": VERSION, "network": name, "overrides": overrides}
    files.safetensors()
    writer = importlib.import_module("safetensors.numpy")
    with replacing(path, force=force) as temporary:
        writer.save_file(
            {key: np.ascontiguousarray(array) for key, array in arrays.items()},
            temporary,
            metadata={"repjax": json.dumps(about)},
        )
        again, read = _read(temporary, str(path))
        found = {key: np.asarray(leaf) for key, leaf in _flat(read).items()}
        if again != model or found.keys() != arrays.keys():
            raise ValueError(f"{path}: is not written, another network was read back")
        for key, array in arrays.items():
            if found[key].dtype != array.dtype or found[key].tobytes() != array.tobytes():
                raise OSError(f"{path}: is not written, {key} was not read back as it is")


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
    return _read(Path(path), str(path))


def _read(path: Path, shown: str) -> tuple[Network, dict[str, Any]]:
    if path.suffix not in (".safetensors", ""):
        raise FileError(f"{shown}: a network is read from .safetensors, found {path.suffix}")
    read = files.read_safetensors(path)
    about = _about(path, shown)
    try:
        model = created(about["network"], about["overrides"])
    except (KeyError, TypeError, ValueError) as error:
        raise FileError(f"{shown}: its network cannot be made here: {error}") from error
    arrays: Arrays = dict(read)
    problems = _differences(model, arrays)
    if problems:
        raise FileError(f"{shown}: is not whole: {_list(problems)}")
    nested: dict[str, Any] = traverse_util.unflatten_dict(  # type: ignore[no-untyped-call]
        {key: jnp.asarray(array) for key, array in arrays.items()}, sep="/"
    )
    return model, nested


def _about(path: Path, shown: str) -> dict[str, Any]:
    with files.safetensors().safe_open(path, framework="np") as file:
        text = (file.metadata() or {}).get("repjax")
    if text is None:
        raise FileError(
            f"{shown}: holds arrays and no network; repjax.torch.read gives the arrays, "
            "repjax.torch.load takes a state dict of PyTorch"
        )
    try:
        about: dict[str, Any] = json.loads(text)
        kind, version = about["format"], int(about["version"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise FileError(f"{shown}: its metadata are damaged: {error}") from error
    if kind != FORMAT or version > VERSION:
        raise FileError(
            f"{shown}: is {kind} of version {version}, this repjax reads {FORMAT} up to {VERSION}"
        )
    return about


def _differences(model: Network, arrays: Mapping[str, Any]) -> list[str]:
    """In which names and shapes arrays differ from the variables of a network."""
    size = getattr(model, "config", None)
    height, width = size.preprocessing.input_size if size else (224, 224)
    images = jax.ShapeDtypeStruct((1, height, width, model.in_channels), jnp.float32)  # type: ignore[no-untyped-call]
    wanted = _flat(jax.eval_shape(model.init, jax.random.key(0), images))
    return [
        *(f"{key} is missing" for key in wanted if key not in arrays),
        *(f"{key} is not expected" for key in arrays if key not in wanted),
        *(
            f"{key} has shape {arrays[key].shape}, expected {wanted[key].shape}"
            for key in wanted
            if key in arrays and arrays[key].shape != wanted[key].shape
        ),
    ]


def _flat(variables: Any) -> dict[str, Any]:
    flat: dict[str, Any] = traverse_util.flatten_dict(dict(variables), sep="/")  # type: ignore[no-untyped-call]
    return flat


def _list(problems: list[str]) -> str:
    more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
    return "; ".join([*problems[:SHOWN], *more])
