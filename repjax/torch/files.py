"""State dicts in files: `.safetensors` and `.npz`, array by array. No pickle is ever opened."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

DTYPES: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}


class SafetensorsFile(Mapping[str, np.ndarray]):
    """The arrays of a `.safetensors` file by name, read from disk when asked for.

    Args:
        path: of the file.

    Raises:
        ValueError: the file is not in that format, or holds a type NumPy does not know.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write(Path(folder) / "x.safetensors", {"a": np.ones((2, 3), np.float32)})
        ...     SafetensorsFile(Path(folder) / "x.safetensors")["a"].shape
        (2, 3)
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        size = self.path.stat().st_size
        with self.path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
            if length > size - 8:
                raise ValueError(f"{path}: not a safetensors file, or cut off in its header")
            try:
                header = json.loads(file.read(length))
            except ValueError as error:
                raise ValueError(f"{path}: not a safetensors file: {error}") from error
        self._begin = 8 + length
        self._entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        ends = [entry["data_offsets"][1] for entry in self._entries.values()]
        if self._begin + max(ends, default=0) > size:
            raise ValueError(
                f"{path}: cut off; its header promises {self._begin + max(ends)} bytes, it has "
                f"{size}; get it again"
            )

    def __getitem__(self, name: str) -> np.ndarray:
        entry = self._entries[name]
        if entry["dtype"] not in DTYPES:
            raise ValueError(
                f"{self.path}: {name} has dtype {entry['dtype']}, expected one of "
                f"{', '.join(DTYPES)}; convert it in PyTorch"
            )
        dtype, shape = np.dtype(DTYPES[entry["dtype"]]), tuple(entry["shape"])
        with self.path.open("rb") as file:
            file.seek(self._begin + entry["data_offsets"][0])
            data = file.read(math.prod(shape) * dtype.itemsize)
        return np.frombuffer(data, dtype).reshape(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def read(path: str | Path) -> Mapping[str, np.ndarray]:
    """The arrays of a `.safetensors` or `.npz` file by name, each read when asked for.

    Args:
        path: of the file.

    Raises:
        ValueError: another kind of file; a `.pth` is named with the line that converts it.
    """
    kind = Path(path).suffix
    if kind == ".safetensors":
        return SafetensorsFile(path)
    if kind == ".npz":
        loaded: Mapping[str, np.ndarray] = np.load(path, allow_pickle=False)
        return loaded
    raise ValueError(
        f"{path}: a state dict is read from .safetensors or .npz, found {kind or 'no suffix'}; "
        'pickles are not opened. In PyTorch: safetensors.torch.save_file(torch.load("weights.pth",'
        ' weights_only=True), "weights.safetensors")'
    )


def write(path: str | Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays to a `.safetensors` or `.npz` file, one after the other.

    Args:
        path: of the file.
        arrays: NumPy or JAX arrays by name.

    Raises:
        ValueError: another suffix, or a type that the format does not have.
    """
    kind = Path(path).suffix
    if kind == ".npz":
        plain: dict[str, Any] = {name: np.asarray(array) for name, array in arrays.items()}
        np.savez(path, **plain)
        return
    if kind != ".safetensors":
        raise ValueError(f"{path}: written are .safetensors and .npz, found {kind or 'no suffix'}")
    header: dict[str, Any] = {}
    place = 0
    for name, array in arrays.items():
        dtype = np.dtype(array.dtype)
        if dtype not in NAMES:
            raise ValueError(f"{name}: safetensors has no {dtype}, expected one of {list(NAMES)}")
        end = place + math.prod(array.shape) * dtype.itemsize
        shape = list(array.shape)
        header[name] = {"dtype": NAMES[dtype], "shape": shape, "data_offsets": [place, end]}
        place = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with Path(path).open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in arrays.values():
            file.write(np.ascontiguousarray(array).tobytes())
