"""State dicts in files: `.safetensors` and `.npz`, array by array. No pickle is ever opened."""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from repjax._files import FileError, replacing
from repjax.torch import npz
from repjax.torch.pickles import SUFFIXES, message
from repjax.torch.stored import Arrays, start_of

# what files of other kinds begin with
FOREIGN = {
    b"PK": "a zip archive, such as torch.save writes",
    b"\x80": "a pickle",
    b"<": "a web page",
    b"version https://git-lfs": "a pointer of Git LFS; `git lfs pull` gets the file",
    b"\x89HDF": "an HDF5 file",
}


def read(path: str | Path) -> Arrays:
    """The arrays of a `.safetensors` or `.npz` file by name, each read when asked for.

    Args:
        path: path of the file.

    Raises:
        FileError: the file is damaged or of another kind; for a pickle, the message has the
            line that converts it.
        OSError: it cannot be opened.
        TypeError: `path` is no path.
        ModuleNotFoundError: the safetensors library is missing; the message names the extra
            that has it.

    Example:
        >>> import tempfile, jax.numpy as jnp
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write(Path(folder, "x.safetensors"), {"a": jnp.ones((2, 3), jnp.bfloat16)})
        ...     read(Path(folder, "x.safetensors"))["a"].dtype
        dtype(bfloat16)
    """
    path = _path(path)
    if path.suffix in SUFFIXES:
        raise FileError(message(path))
    if path.suffix not in (".safetensors", ".npz"):
        raise FileError(
            f"{path}: a state dict is read from .safetensors or .npz, found "
            f"{path.suffix or 'no suffix'}"
        )
    return npz.read(path) if path.suffix == ".npz" else _safetensors(path)


def _safetensors(path: Path) -> Arrays:
    start = start_of(path)
    for beginning, words in FOREIGN.items():
        # a safetensors file begins with the length of its header, a multiple of 8 by rights
        if start.startswith(beginning) and start[8:9] != b"{":
            raise FileError(f"{path}: is no safetensors file but {words}")
    library = safetensors()
    try:
        file = library.safe_open(path, framework="np")
        names, metadata = list(file.keys()), file.metadata()
    except library.SafetensorError as error:
        reason = str(error).removeprefix("Error while deserializing header: ")
        raise FileError(f"{path}: is cut off or no safetensors file: {reason}") from error

    def read_array(name: str) -> np.ndarray:
        try:
            array: np.ndarray = file.get_tensor(name)
        except (library.SafetensorError, AttributeError, TypeError, KeyError) as error:
            kind = file.get_slice(name).get_dtype()
            raise FileError(f"{path}: {name} has the type {kind}, which NumPy lacks") from error
        return array

    return Arrays(path, {name: functools.partial(read_array, name) for name in names}, metadata)


def write(
    path: str | Path,
    arrays: Mapping[str, Any],
    *,
    force: bool = False,
    metadata: Mapping[str, str] | None = None,
    check: Callable[[Arrays], Any] | None = None,
) -> None:
    """Write arrays to a `.safetensors` or `.npz` file: the whole file, or nothing.

    Args:
        path: path of the file.
        arrays: NumPy or JAX arrays by name.
        force: replace a file that is there already.
        metadata: words to stand beside the arrays, by name; `.npz` files have none.
        check: is called with what was read back, before the file gets its name; raises, if
            that is not to be kept.

    Raises:
        FileExistsError: the file exists, and `force` is false.
        OSError: it cannot be written.
        ValueError: the suffix is another one, or the format does not have a type.
        TypeError: `path` is no path, or `arrays` is no mapping of names.
        ModuleNotFoundError: the safetensors library is missing; the message names the extra
            that has it.
    """
    path = _path(path)
    if not isinstance(arrays, Mapping):
        raise TypeError(f"{path}: expected names to arrays, found a {type(arrays).__name__}")
    for name in arrays:
        if not isinstance(name, str):
            raise TypeError(f"{path}: expected names to arrays, found the name {name!r}")
    if path.suffix not in (".safetensors", ".npz"):
        raise ValueError(
            f"{path}: written are .safetensors and .npz, found {path.suffix or 'no suffix'}"
        )
    plain = {name: _as_it_lies(np.asarray(array)) for name, array in arrays.items()}
    if path.suffix == ".npz":
        npz.require_kept(path, plain)
    else:
        safetensors()
    with replacing(path, force=force) as temporary:
        if path.suffix == ".npz":
            npz.write(temporary, plain)
        else:
            _write_safetensors(path, temporary, plain, metadata)
        if check is not None:
            check(npz.read(temporary) if path.suffix == ".npz" else _safetensors(temporary))


def _as_it_lies(array: np.ndarray) -> np.ndarray:
    """The array in C order and native byte order: safetensors writes memory as it is."""
    return np.asarray(array.astype(array.dtype.newbyteorder("="), copy=False), order="C")


def _write_safetensors(
    path: Path,
    temporary: Path,
    arrays: dict[str, np.ndarray],
    metadata: Mapping[str, str] | None,
) -> None:
    library, numpy = safetensors(), importlib.import_module("safetensors.numpy")
    words: dict[str, Any] = {} if metadata is None else {"metadata": dict(metadata)}
    try:
        numpy.save_file(arrays, temporary, **words)
    except library.SafetensorError as error:
        raise ValueError(f"{path}: {error}") from error
    try:  # a full disk goes unnoticed by the library
        library.safe_open(temporary, framework="np").keys()
    except library.SafetensorError as error:
        raise OSError(f"{path}: could not be written whole; is the disk full?") from error


def _path(path: Any) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"expected a path, found {path!r:.40}")
    return Path(path)


def safetensors() -> Any:
    """The safetensors library.

    Raises:
        ModuleNotFoundError: the library is not installed.
    """
    try:
        return importlib.import_module("safetensors")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'safetensors files need the safetensors library: python -m pip install "repjax[files]"'
        ) from error
