"""State dicts in files: `.safetensors` and `.npz`, array by array. No pickle is ever opened."""

from __future__ import annotations

import functools
import importlib
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from repjax._files import FileError, replacing
from repjax.torch.pickles import SUFFIXES, message

# what files of other kinds begin with
FOREIGN = {
    b"PK": "a zip archive, such as torch.save writes",
    b"\x80": "a pickle",
    b"<": "a web page",
    b"version https://git-lfs": "a pointer of Git LFS; `git lfs pull` gets the file",
    b"\x89HDF": "an HDF5 file",
}


class Arrays(Mapping[str, np.ndarray]):
    """The arrays of a file by name, each read when asked for.

    Args:
        path: path of the file.
        readers: name to a function that reads the array.
    """

    def __init__(self, path: str | Path, readers: Mapping[str, Callable[[], np.ndarray]]) -> None:
        self.path = Path(path)
        self._readers = readers

    def __getitem__(self, name: str) -> np.ndarray:
        return self._readers[name]()

    def __contains__(self, name: object) -> bool:
        return name in self._readers

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)


def read(path: str | Path) -> Mapping[str, np.ndarray]:
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
    return _npz(path, _start(path)) if path.suffix == ".npz" else read_safetensors(path)


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        raise FileError(f"{path}: is empty; get it again")
    return start


def read_safetensors(path: Path) -> Arrays:
    """The arrays of a safetensors file, whatever its suffix is; otherwise as `read`."""
    start = _start(path)
    for beginning, words in FOREIGN.items():
        # a safetensors file begins with the length of its header, a multiple of 8 by rights
        if start.startswith(beginning) and start[8:9] != b"{":
            raise FileError(f"{path}: is no safetensors file but {words}")
    library = safetensors()
    try:
        file = library.safe_open(path, framework="np")
        names = list(file.keys())
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

    return Arrays(path, {name: functools.partial(read_array, name) for name in names})


def _npz(path: Path, start: bytes) -> Arrays:
    if not start.startswith(b"PK"):
        raise FileError(f"{path}: is no .npz file, which begins with PK, found {start[:4]!r}")
    damage = (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError, NotImplementedError)
    try:
        file = zipfile.ZipFile(path)
    except damage as error:
        raise FileError(f"{path}: is cut off or no .npz file: {error}") from error

    def read_array(member: str, name: str) -> np.ndarray:
        try:
            with file.open(member) as content:
                array: np.ndarray = np.lib.format.read_array(content, allow_pickle=False)
        except damage as error:
            raise FileError(f"{path}: {name} cannot be read: {error}") from error
        if array.dtype.kind == "V":
            raise FileError(
                f"{path}: {name} has the type {array.dtype}: .npz files lose types that NumPy "
                "lacks, such as bfloat16; save it as float32, or in a .safetensors file"
            )
        return array

    names = {member.removesuffix(".npy"): member for member in file.namelist()}
    readers = {name: functools.partial(read_array, names[name], name) for name in names}
    return Arrays(path, readers)


def write(path: str | Path, arrays: Mapping[str, Any], *, force: bool = False) -> None:
    """Write arrays to a `.safetensors` or `.npz` file: the whole file, or nothing.

    Args:
        path: path of the file.
        arrays: NumPy or JAX arrays by name.
        force: replace a file that is there already.

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
    (_write_npz if path.suffix == ".npz" else _write_safetensors)(path, plain, force)


def _as_it_lies(array: np.ndarray) -> np.ndarray:
    """The array in C order and native byte order: safetensors writes memory as it is."""
    return np.asarray(array.astype(array.dtype.newbyteorder("="), copy=False), order="C")


def _write_safetensors(path: Path, arrays: dict[str, np.ndarray], force: bool) -> None:
    library, numpy = safetensors(), importlib.import_module("safetensors.numpy")
    with replacing(path, force=force) as temporary:
        try:
            numpy.save_file(arrays, temporary)
        except library.SafetensorError as error:
            raise ValueError(f"{path}: {error}") from error
        try:  # a full disk goes unnoticed by the library
            library.safe_open(temporary, framework="np").keys()
        except library.SafetensorError as error:
            raise OSError(f"{path}: could not be written whole; is the disk full?") from error


def _write_npz(path: Path, arrays: dict[str, np.ndarray], force: bool) -> None:
    for name, array in arrays.items():
        if not _npz_keeps(array.dtype):
            raise ValueError(
                f"{path}: {name} has the type {array.dtype}, which .npz files lose; write a "
                ".safetensors file, or convert it to float32"
            )
    with replacing(path, force=force) as temporary, zipfile.ZipFile(temporary, "w") as file:
        for name, array in arrays.items():
            with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _npz_keeps(dtype: np.dtype[Any]) -> bool:
    try:
        description: Any = np.lib.format.dtype_to_descr(dtype)
        return not dtype.hasobject and np.lib.format.descr_to_dtype(description) == dtype
    except (TypeError, ValueError):
        return False


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
