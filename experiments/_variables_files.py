"""Variables trees from and to files: Orbax folders, safetensors, npz, state dicts of PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util

import repjax
from repjax import export, models
from repjax._files import FileError, check_target
from repjax.export.network_file import is_network
from repjax.torch import files

Model = models.Network | None
SUFFIXES = (".safetensors", ".npz", ".stablehlo", ".onnx")
"""Of the files that are written; without a suffix it is a folder of Orbax."""


def read(path: Path, model: Model) -> tuple[Model, dict[str, Any], str]:
    """A variables tree, in which form it lies there, and the model if the file names one.

    Args:
        path: an Orbax checkpoint (a folder), `.safetensors` or `.npz`.
        model: the network, which a state dict of PyTorch needs.

    Returns:
        The model, the tree, and words about what was read.

    Raises:
        FileError: it is of another kind or damaged.
        OSError: it cannot be opened.
        ValueError: a state dict does not fit the model, or there is no model for it.
    """
    if path.is_dir():
        return model, _collections(_orbax(path), path), "an Orbax checkpoint"
    arrays = repjax.torch.read(path)
    if model is None and is_network(arrays):
        model, variables = repjax.load(path)
        return model, variables, f"a network, {type(model).__name__}"
    if any("/" in name for name in arrays):
        nested = traverse_util.unflatten_dict(  # type: ignore[no-untyped-call]
            {name: jnp.asarray(array) for name, array in arrays.items()}, sep="/"
        )
        return model, _collections(nested, path), "variables"
    if model is None:
        raise ValueError(
            f"{path}: looks like a state dict of PyTorch ({next(iter(arrays), 'empty')}); "
            "--model says of which network"
        )
    loaded = repjax.torch.convert(model, arrays)
    if loaded.deployed:
        raise ValueError(f"{path}: {loaded}; it is fused already, python -m repjax.torch converts")
    return model, loaded.variables, f"a state dict of PyTorch, {loaded}"


def write(
    path: Path,
    model: Model,
    deployed: Mapping[str, Any],
    images: Any,
    *,
    state_dict: bool,
    force: bool,
) -> str:
    """Write deploy variables in the format of the suffix; words about what was written.

    Args:
        path: its suffix is one of `SUFFIXES`, or it has none.
        model: the deploy twin; without one, only trees of arrays are written.
        deployed: its variables.
        images: examples, for programs.
        state_dict: write timm's names instead of paths.
        force: replace a file that is there already.

    Raises:
        ValueError: the format needs a model, or is unknown; also as `repjax.export`.
        OSError: it cannot be written.
    """
    if model is None and (path.suffix in (".stablehlo", ".onnx") or state_dict):
        raise ValueError(f"{path}: this needs the network; name it by --model")
    if state_dict:
        export.timm(path, model, deployed, force=force)  # type: ignore[arg-type]
        return "a state dict with timm's names"
    if path.suffix == ".stablehlo":
        export.stablehlo(path, model.apply, deployed, images, force=force)  # type: ignore[union-attr]
        return "StableHLO for any batch size, the parameters inside"
    if path.suffix == ".onnx":
        export.onnx(path, model.apply, deployed, images, force=force)  # type: ignore[union-attr]
        return "an ONNX model for any batch size"
    if path.suffix == ".safetensors" and model is not None:
        export.safetensors(path, model, deployed, force=force)
        return "a network with its variables, for repjax.load"
    if path.suffix in (".safetensors", ".npz"):
        flat = traverse_util.flatten_dict(dict(deployed), sep="/")  # type: ignore[no-untyped-call]
        files.write(path, flat, force=force)
        return "variables, named by their paths"
    _write_orbax(path, deployed, force=force)
    return "an Orbax checkpoint"


def check(path: Path, *, force: bool) -> None:
    """Refuse a target before anything is computed for it.

    Raises:
        ValueError: it has another suffix.
        OSError: it exists and is kept, or its folder is missing.
    """
    if path.suffix not in (*SUFFIXES, ""):
        raise ValueError(f"{path}: written are {', '.join(SUFFIXES)}, an Orbax folder (no suffix)")
    if path.suffix == "" and path.is_dir():
        if not force:
            raise FileExistsError(f"{path}: exists already and is kept; --force replaces it")
        return
    check_target(path, force=force)


def _collections(tree: Any, path: Path) -> dict[str, Any]:
    """The model's collections of what a training script saved."""
    for name in ("params", "variables", "model", "state"):
        inner = tree.get(name) if isinstance(tree, Mapping) else None
        if isinstance(inner, Mapping) and "params" in inner:
            return _collections(inner, path)
    if not isinstance(tree, Mapping) or not tree:
        raise FileError(f"{path}: holds no tree of arrays")
    if "params" not in tree:
        return dict(tree)
    others = ("opt_state", "optimizer", "step", "rng", "key", "epoch", "metrics", "ema")
    return {name: value for name, value in tree.items() if name not in others}


def _orbax(path: Path) -> Any:
    try:
        return jax.tree.map(jnp.asarray, _restored(path))
    except Exception as error:  # folders of other kinds fail in many ways
        raise FileError(f"{path}: is no whole Orbax checkpoint: {str(error)[:200]!r}") from error


def _restored(path: Path) -> Any:
    """The tree of a checkpoint in NumPy, wherever its arrays were sharded."""
    with ocp.PyTreeCheckpointer() as checkpointer:
        metadata = checkpointer.metadata(path.resolve()).item_metadata.tree
        kinds = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), metadata)
        return checkpointer.restore(path.resolve(), restore_args=kinds)


def _write_orbax(path: Path, deployed: Any, *, force: bool) -> None:
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(path.resolve(), jax.tree.map(np.asarray, dict(deployed)), force=force)
    pairs = zip(jax.tree.leaves(_restored(path)), jax.tree.leaves(dict(deployed)), strict=True)
    if not all(np.array_equal(one, other, equal_nan=True) for one, other in pairs):
        raise OSError(f"{path}: was not read back as it was written")
