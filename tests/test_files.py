"""Writing files: the whole file or the old one, whatever happens."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from repjax._files import check_target, replacing


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def put(
    target: Path, text: str, then: Callable[[], object] = lambda: None, *, force: bool = False
) -> None:
    with replacing(target, force=force) as path:
        path.write_text(text)
        then()


def test_an_existing_file_is_kept_unless_forced(tmp_path: Path) -> None:
    target = tmp_path / "x.txt"
    target.write_text("old")
    with pytest.raises(FileExistsError, match=r"x\.txt: exists already .*--force"):
        put(target, "new")
    assert target.read_text() == "old"
    with replacing(target, force=True) as path:
        assert path.parent == tmp_path
        path.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert listing(tmp_path) == ["x.txt"]


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "x.txt"
    with pytest.raises(FileExistsError):
        put(target, "new", lambda: target.write_text("other"))
    assert target.read_text() == "other"
    assert listing(tmp_path) == ["x.txt"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "x.txt"
    target.write_text("old")

    def fail() -> None:
        raise error

    with pytest.raises(type(error)):
        put(target, "ne", fail, force=True)
    assert target.read_text() == "old"
    assert listing(tmp_path) == ["x.txt"]


def test_the_file_is_on_the_disk_before_it_is_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    flush, rename = os.fsync, Path.replace

    def record_flush(descriptor: int) -> None:
        events.append("flush")
        flush(descriptor)

    def record_rename(path: Path, target: Path) -> Path:
        events.append("rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", record_flush)
    monkeypatch.setattr(Path, "replace", record_rename)
    with replacing(tmp_path / "x.txt") as path:
        path.write_text("new")
    assert events == ["flush", "rename", "flush"]


def test_permissions_and_links_are_kept(tmp_path: Path) -> None:
    real, link = tmp_path / "real.txt", tmp_path / "link.txt"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)
    with replacing(link, force=True) as path:
        path.write_text("new")
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert real.stat().st_mode & 0o777 == 0o640
    with replacing(tmp_path / "fresh.txt") as path:
        path.write_text("new")
    (tmp_path / "usual.txt").write_text("")
    modes = {(tmp_path / name).stat().st_mode for name in ("fresh.txt", "usual.txt")}
    assert len(modes) == 1


def test_folders_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="is a folder, expected the path of a file"):
        check_target(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*missing"):
        check_target(tmp_path / "missing" / "x.txt")
    assert listing(tmp_path) == []


def test_a_folder_that_cannot_be_written_to_is_named_by_the_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(PermissionError, match=r"Permission denied: '.*/x\.txt'"):
        put(tmp_path / "x.txt", "new")


def test_long_names_are_written(tmp_path: Path) -> None:
    put(tmp_path / ("x" * 255), "new")
    assert (tmp_path / ("x" * 255)).read_text() == "new"
