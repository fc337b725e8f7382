"""State dicts in files: what is written comes back; what is damaged or foreign is named."""

from __future__ import annotations

import builtins
import io
import json
import struct
import sys
import zipfile
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from repjax.torch import FileError, read, write
from repjax.torch.pickles import SUFFIXES, code, message
from tests.torch.fake import Tensor, install

ARRAYS: dict[str, Any] = {
    "matrix": np.arange(6.0).reshape(2, 3),
    "scalar": np.asarray(1, np.float32),
    "empty": np.zeros((0, 2), np.int8),
    "file": np.ones(2, np.float16),  # an argument's name in numpy.savez
    "a/b": np.arange(12, dtype=np.int64).reshape(3, 4).T,  # not in C order
    "big endian": np.arange(3, dtype=">f4"),
}


def assert_same(found: Any, wanted: Any) -> None:
    assert set(found) == set(wanted)
    for name in wanted:
        assert found[name].dtype == np.asarray(wanted[name]).dtype.newbyteorder("=")
        np.testing.assert_array_equal(found[name], wanted[name])


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_what_is_written_comes_back(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    write(path, ARRAYS)
    assert_same(dict(read(path)), ARRAYS)
    (tmp_path / "usual").write_text("")
    assert path.stat().st_mode == (tmp_path / "usual").stat().st_mode
    (tmp_path / "usual").unlink()
    with pytest.raises(FileExistsError, match="exists already and is kept"):
        write(path, {"other": np.ones(1)})
    assert_same(dict(read(path)), ARRAYS)
    write(path, {"other": np.ones(1)}, force=True)
    assert list(read(path)) == ["other"]
    assert len(list(tmp_path.iterdir())) == 1


def test_other_readers_and_writers_agree(tmp_path: Path) -> None:
    native = {name: array.astype(array.dtype.newbyteorder("=")) for name, array in ARRAYS.items()}
    safetensors.numpy.save_file(
        {name: np.asarray(array, order="C") for name, array in native.items()},
        tmp_path / "theirs.safetensors",
    )
    assert_same(dict(read(tmp_path / "theirs.safetensors")), native)
    write(tmp_path / "ours.safetensors", ARRAYS)
    assert_same(safetensors.numpy.load_file(tmp_path / "ours.safetensors"), native)
    write(tmp_path / "ours.npz", ARRAYS)
    with np.load(tmp_path / "ours.npz") as file:
        assert_same({name: file[name] for name in file.files}, native)


def test_bfloat16_is_kept_or_refused(tmp_path: Path) -> None:
    arrays = {"a": jnp.asarray([0.5, -3], jnp.bfloat16)}
    write(tmp_path / "x.safetensors", arrays)
    assert_same(dict(read(tmp_path / "x.safetensors")), arrays)
    with pytest.raises(ValueError, match=r"x\.npz: a has the type bfloat16, which \.npz files"):
        write(tmp_path / "x.npz", arrays)
    assert not (tmp_path / "x.npz").exists()
    np.savez(tmp_path / "lost.npz", a=np.asarray(arrays["a"]))
    with pytest.raises(FileError, match=r"lost\.npz: a has the type \|V2: .* bfloat16"):
        read(tmp_path / "lost.npz")["a"]


@pytest.mark.parametrize("name", ["x.safetensors", "x.npz"])
def test_types_without_a_place_are_refused_and_the_old_file_stays(
    tmp_path: Path, name: str
) -> None:
    write(tmp_path / name, {"a": np.ones(1)})
    for array in (np.asarray([None]), np.zeros(1, jnp.int4.dtype)):
        with pytest.raises(ValueError, match=rf"{name}: "):
            write(tmp_path / name, {"a": array}, force=True)
    assert_same(dict(read(tmp_path / name)), {"a": np.ones(1)})


def test_a_full_disk_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(arrays: Any, path: Path) -> None:
        path.write_bytes(safetensors.numpy.save(arrays)[:-1])

    path = tmp_path / "x.safetensors"
    write(path, {"a": np.ones(1)})
    monkeypatch.setattr(safetensors.numpy, "save_file", save)
    with pytest.raises(OSError, match="could not be written whole; is the disk full"):
        write(path, {"a": np.ones(9)}, force=True)
    assert_same(dict(read(path)), {"a": np.ones(1)})


def header(content: bytes | dict[str, Any], data: bytes = b"") -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [2], "data_offsets": [begin, end]}


def npz(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


WHOLE = safetensors.numpy.save({"a": np.ones(20)})
BROKEN: dict[str, tuple[str, bytes, str]] = {
    "empty": ("x.safetensors", b"", "is empty; get it again"),
    "header cut off": ("x.safetensors", WHOLE[:20], "is cut off or no safetensors file: "),
    "data cut off": ("x.safetensors", WHOLE[:-8], "is cut off or no safetensors file: "),
    "too long": ("x.safetensors", WHOLE + b"0", "is cut off or no safetensors file: "),
    "too short": ("x.safetensors", b"123", "is cut off or no safetensors file: "),
    "huge header": ("x.safetensors", struct.pack("<Q", 1 << 60) + bytes(64), "no safetensors file"),
    "no JSON": ("x.safetensors", header(b"{nothing}"), "no safetensors file"),
    "a list": ("x.safetensors", header(b"[1, 2]"), "no safetensors file"),
    "shifted": ("x.safetensors", header({"a": entry(4, 12)}, bytes(12)), "no safetensors file"),
    "overlapping": (
        "x.safetensors",
        header({"a": entry(0, 8), "b": entry(4, 12)}, bytes(12)),
        "no safetensors file",
    ),
    "longer than its shape": (
        "x.safetensors",
        header({"a": entry(0, 12)}, bytes(12)),
        "no safetensors file",
    ),
    "negative": ("x.safetensors", header({"a": entry(-8, 0)}, b""), "no safetensors file"),
    "unknown type": ("x.safetensors", header({"a": entry(0, 8, "XX")}, bytes(8)), "safetensors"),
    "torch.save": ("x.safetensors", npz(a=b"") + bytes(99), "a zip archive, such as torch.save"),
    "pickle": (
        "x.safetensors",
        b"\x80\x02}q\x00." + bytes(64),
        "but a pickle",
    ),
    "web page": ("x.safetensors", b"<!DOCTYPE html><html></html>", "but a web page"),
    "pointer": ("x.safetensors", b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
    "empty npz": ("x.npz", b"", "is empty; get it again"),
    "foreign npz": ("x.npz", WHOLE, "is no .npz file, which begins with PK"),
    "npz cut off": ("x.npz", npz(a=b"1" * 50)[:-30], "is cut off or no .npz file"),
    "no array": ("x.npz", npz(a=b"\x93NUMPY\x01\x00\x00"), "a cannot be read: "),
    "huge array header": (
        "x.npz",
        npz(a=b"\x93NUMPY\x02\x00\xff\xff\xff\x7f{}"),
        "a cannot be read",
    ),
    "no suffix": ("weights", WHOLE, "read from .safetensors or .npz, found no suffix"),
    "another suffix": ("x.h5", WHOLE, "read from .safetensors or .npz, found .h5"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_damaged_and_foreign_files_are_named_in_one_line(tmp_path: Path, case: str) -> None:
    name, content, words = BROKEN[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileError) as caught:
        [array.shape for array in read(tmp_path / name).values()]
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / name}: ")
    assert words in text
    assert "\n" not in text
    assert len(text) < 400 + len(str(tmp_path))


def test_an_array_with_damaged_bytes_is_named(tmp_path: Path) -> None:
    write(tmp_path / "x.npz", {"a": np.ones(100), "b": np.ones(3)})
    content = bytearray((tmp_path / "x.npz").read_bytes())
    content[300] ^= 1
    (tmp_path / "x.npz").write_bytes(content)
    found = read(tmp_path / "x.npz")
    assert found["b"].sum() == 3
    with pytest.raises(FileError, match=r"x\.npz: a cannot be read: Bad CRC"):
        found["a"]


def test_a_type_that_numpy_lacks_is_named(tmp_path: Path) -> None:
    content = header({"a": {"dtype": "F8_E8M0", "shape": [2], "data_offsets": [0, 2]}}, bytes(2))
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(FileError, match="a has the type F8_E8M0, which NumPy lacks"):
        read(tmp_path / "x.safetensors")["a"]


def test_missing_files_are_named(tmp_path: Path) -> None:
    for name in ("x.safetensors", "x.npz"):
        with pytest.raises(FileNotFoundError, match=name):
            read(tmp_path / name)
    with pytest.raises(ValueError, match=r"written are \.safetensors and \.npz, found \.pth"):
        write(tmp_path / "x.pth", {})


def test_the_extra_is_named_where_the_library_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.safetensors").write_bytes(WHOLE)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    for attempt in (
        lambda: read(tmp_path / "x.safetensors"),
        lambda: write(tmp_path / "y.safetensors", {}),
    ):
        with pytest.raises(ModuleNotFoundError, match=r'pip install "repjax\[files\]"'):
            attempt()


WRAPPED: dict[str, Any] = {
    "bare": lambda state: state,
    "entry": lambda state: {"epoch": 3, "state_dict": state, "optimizer": {"lr": 0.1}},
    "averages": lambda state: {"model": {"w": Tensor(np.zeros(1))}, "ema": {"module": state}},
    "an empty entry": lambda state: {"ema": {}, "model_state_dict": state},
    "numbers beside": lambda state: {**state, "step": 5, "name": "x"},
}


@pytest.mark.parametrize("case", WRAPPED)
def test_the_line_for_a_pickle_unwraps_and_writes(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / 'it\'s "x".pth', tmp_path / 'it\'s "x".safetensors'
    state = {"w": Tensor(np.arange(6.0).reshape(2, 3).T), "b": Tensor(np.ones(2))}

    def load(path: str, *, map_location: str, weights_only: bool) -> Any:
        assert (path, map_location, weights_only) == (str(source), "cpu", True)
        return WRAPPED[case](state)

    install(monkeypatch, load)

    def run() -> None:
        builtins.exec(code(source, target), {})

    run()
    wanted = {name: tensor.array for name, tensor in state.items()}
    assert_same(dict(read(target)), wanted)
    target.write_bytes(b"another file")
    with pytest.raises(FileExistsError):
        run()
    assert target.read_bytes() == b"another file"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_pickle_is_not_opened_and_the_line_is_printed(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    with pytest.raises(FileError, match="pickles are not opened") as caught:
        read(path)
    assert str(caught.value) == message(path)
    assert "python -c " in str(caught.value)
    assert len(str(caught.value).splitlines()) < 10
