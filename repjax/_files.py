"""Files: written whole or not at all, and one error for those that cannot be read."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path


class FileError(ValueError):
    """A file that is damaged or of another kind; the message names it and the cause."""


@contextlib.contextmanager
def replacing(target: str | Path, *, force: bool = False) -> Iterator[Path]:
    """A path to write to, which becomes the target when the block ends without an error.

    What is written goes to a temporary file in the same folder, is flushed to the disk and
    renamed, so that a reader sees the old file or the new one and a failure leaves the old.

    Args:
        target: path of the file.
        force: replace a file that is there already.

    Yields:
        The path of the temporary file, which exists and is empty.

    Raises:
        FileExistsError: the target exists, and `force` is false.
        OSError: its folder is missing or cannot be written to, or the target is a folder.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with replacing(Path(folder, "numbers.txt")) as path:
        ...         _ = path.write_text("1 2 3")
        ...     Path(folder, "numbers.txt").read_text(), len(list(Path(folder).iterdir()))
        ('1 2 3', 1)
    """
    check_target(target, force=force)
    final = Path(os.path.realpath(target))  # a link stays one
    temporary = final.with_name(f".repjax-{secrets.token_hex(8)}")
    try:
        temporary.open("xb").close()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(target)) from error
    try:
        if final.exists():
            shutil.copymode(final, temporary)
        mode = stat.S_IMODE(temporary.stat().st_mode)
        yield temporary
        temporary.chmod(mode)  # some writers make a file of their own and rename it
        _flush(temporary)
        check_target(target, force=force)
        temporary.replace(final)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":
        _flush(final.parent)


def check_target(target: str | Path, *, force: bool = False) -> None:
    """Refuse to write to a path, before anything is computed for it.

    Args:
        target: path of the file.
        force: whether a file that is there already may be replaced.

    Raises:
        FileExistsError: the target exists, and `force` is false.
        OSError: its folder is missing, or it is a folder itself.

    Example:
        >>> check_target("missing/x.npz")
        Traceback (most recent call last):
        FileNotFoundError: missing/x.npz: there is no folder missing
    """
    path = Path(os.path.realpath(target))
    if path.is_dir():
        raise IsADirectoryError(f"{target}: is a folder, expected the path of a file")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{target}: there is no folder {Path(target).parent}")
    if path.exists() and not force:
        raise FileExistsError(
            f"{target}: exists already and is kept; force=True (--force) replaces it"
        )


def _flush(path: Path) -> None:
    """Wait until a file or a folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
