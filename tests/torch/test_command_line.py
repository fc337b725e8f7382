"""The converter: what it says, what it writes, what it refuses, and never a traceback."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import traverse_util

import repjax
from repjax import models
from repjax.torch import read, write
from repjax.torch.__main__ import bar, main
from repjax.torch.fit import flat
from tests.torch.states import state_of, variables_of

FIELDS: dict[str, Any] = {"depths": (1, 1, 1, 1), "widths": (4, 4, 6, 8)}
SET = [f"--set={field}={value}" for field, value in FIELDS.items()]
MODEL = models.create("repvgg_a0", num_classes=5, **FIELDS)
VARIABLES = variables_of(MODEL)
STATE = {f"module.{name}": array for name, array in state_of(MODEL, VARIABLES).items()}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write(tmp_path / "in.safetensors", STATE)
    return tmp_path / "in.safetensors"


def run(source: Path, target: Path, *options: str) -> int:
    return main(["repvgg_a0", str(source), str(target), "--num-classes", "5", *SET, *options])


def test_it_says_what_it_did(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = source.with_name("out.npz")
    assert run(source, target) == 0
    lines = capsys.readouterr().out.splitlines()
    count = len(flat(VARIABLES))
    assert lines[0] == (
        f"{source}: train form, original naming, {count} arrays; taken out of prefix 'module.'"
    )
    assert lines[1].startswith(f"{target}: train form, {count} arrays, 0.0 MB")
    assert "--fuse --verify" in lines[2]
    tree = traverse_util.unflatten_dict(dict(read(target)), sep="/")
    jax.tree.map(np.testing.assert_array_equal, tree, VARIABLES)


def test_a_verified_deploy_form(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = source.with_name("out.safetensors")
    assert run(source, target, "--fuse", "--verify") == 0
    lines = capsys.readouterr().out.splitlines()
    deployed = repjax.fuse_params(VARIABLES)
    assert lines[1] == "equal to rounding (float32)"
    assert lines[-1].startswith(f"{target}: deploy form, {len(flat(deployed))} arrays")
    tree = traverse_util.unflatten_dict(dict(read(target)), sep="/")
    jax.tree.map(np.testing.assert_array_equal, tree, deployed)


def test_nothing_is_written_that_is_not_equal(
    source: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    unequal = repjax.Verification(worst=2.0)
    monkeypatch.setattr("repjax.torch.__main__.verify", lambda *programs: unequal)
    assert run(source, source.with_name("out.npz"), "--fuse", "--verify") == 1
    assert "differs from the train form; nothing was written" in capsys.readouterr().err
    assert not source.with_name("out.npz").exists()


def test_a_new_head_is_said(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = source.with_name("out.npz")
    arguments = ["repvgg_a0", str(source), str(target), *SET, "--new-head", "3"]
    assert main([*arguments, "--num-classes", "7"]) == 0
    assert "a new head was initialized for 7 classes" in capsys.readouterr().out
    assert read(target)["params/head/bias"].shape == (7,)


def test_an_existing_target_and_the_source_are_kept(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = source.read_bytes()
    target = source.with_name("out.npz")
    target.write_bytes(b"precious")
    assert run(source, target) == 1
    assert "out.npz: exists already and is kept; force=True (--force)" in capsys.readouterr().err
    assert target.read_bytes() == b"precious"
    link = source.with_name("link.safetensors")
    link.hardlink_to(source)
    for same in (source, link, source.parent / "." / source.name):
        assert run(source, same, "--force") == 1
        assert "source and target are the same file" in capsys.readouterr().err
    assert source.read_bytes() == before
    assert run(source, target, "--force") == 0
    assert len(read(target)) == len(flat(VARIABLES))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["repvgg_a9", "in.safetensors", "out.npz"], "no network is named 'repvgg_a9'"),
        (["repvgg_a0", "in.safetensors", "out.npz"], "it has 5 classes, the model 1000"),
        (["repvgg_a0", "missing.npz", "out.npz"], "No such file or directory: 'missing.npz'"),
        (["repvgg_a0", "in.pth", "out.npz"], "python -c "),
        (["repvgg_a0", "in.safetensors", "out.txt"], ""),
        (["repvgg_a0", "in.safetensors", "no/out.npz"], "no/out.npz: there is no folder no"),
        (["repvgg_a0", "in.safetensors", "out.npz", "--set", "widht=3"], "knows no widht"),
        (["repvgg_a0", "in.safetensors", "out.npz", "--verify"], "add --fuse"),
        (["repvgg_a0", "in.safetensors", "out.npz", "--naming", "x"], "no naming 'x' of RepVGG"),
    ],
)
def test_problems_are_said_without_a_traceback(
    source: Path,
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(source.parent)
    assert main([*arguments, *SET]) == 1
    text = capsys.readouterr().err
    assert words in text
    assert "Traceback" not in text
    assert len(text.splitlines()) <= 20
    assert [path.name for path in source.parent.iterdir()] == ["in.safetensors"]


def test_usage_errors_name_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    for option in (["--set", "heads"], ["--num-classes", "many"]):
        with pytest.raises(SystemExit):
            main(["repvgg_a0", "a.npz", "b.npz", *option])
        assert option[0] in capsys.readouterr().err


def test_the_bar_is_drawn_on_terminals_only_and_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream, drawn in ((Terminal(), True), (io.StringIO(), False)):
        now = iter((0.0, 0.5, 2.0, 3.0))
        monkeypatch.setattr("repjax.torch.__main__.time.monotonic", lambda now=now: next(now))
        show = bar("reading", stream)
        for done in (1, 2, 4):
            show(done * 10**6, 4 * 10**6)
        text = stream.getvalue()
        assert ("2 of 4 MB" in text) == drawn
        assert "1 of 4 MB" not in text
        assert text.rsplit("\r", 1)[-1] == ""
