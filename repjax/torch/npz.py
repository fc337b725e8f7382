"""The format `.npz`: NumPy's arrays in a zip archive, without pickles."""

from __future__ import annotations

import functools
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from repjax._files import FileError
from repjax.torch.stored import Arrays, start_of


def read(path: Path) -> Arrays:
    """The arrays of a file, whatever its suffix is.

    Raises:
        FileError: it is damaged or of another kind.
        OSError: it cannot be opened.
    """
    start = start_of(path)
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


def require_kept(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Refuse arrays of a type that such files lose.

    Raises:
        ValueError: of these.
    """
    for name, array in arrays.items():
        if not _kept(array.dtype):
            raise ValueError(
                f"{path}: {name} has the type {array.dtype}, which .npz files lose; write a "
                ".safetensors file, or convert it to float32"
            )


def write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays in place."""
    with zipfile.ZipFile(path, "w") as file:
        for name, array in arrays.items():
            with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _kept(dtype: np.dtype[Any]) -> bool:
    try:
        description: Any = np.lib.format.dtype_to_descr(dtype)
        return not dtype.hasobject and np.lib.format.descr_to_dtype(description) == dtype
    except (TypeError, ValueError):
        return False
