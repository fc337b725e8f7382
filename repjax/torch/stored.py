"""The arrays of a file by name, each read when asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from repjax._files import FileError


class Arrays(Mapping[str, np.ndarray]):
    """The arrays of a file by name, each read when asked for.

    Args:
        path: path of the file.
        readers: name to a function that reads the array.
        metadata: words that stand in the file beside the arrays, by name.
    """

    def __init__(
        self,
        path: str | Path,
        readers: Mapping[str, Callable[[], np.ndarray]],
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self.path = Path(path)
        self.metadata = dict(metadata or {})
        self._readers = readers

    def __getitem__(self, name: str) -> np.ndarray:
        return self._readers[name]()

    def __contains__(self, name: object) -> bool:
        return name in self._readers

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)


def start_of(path: Path) -> bytes:
    """The first bytes of a file.

    Raises:
        FileError: it is empty.
        OSError: it cannot be opened.
    """
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        raise FileError(f"{path}: is empty; get it again")
    return start
