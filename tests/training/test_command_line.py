"""What is wrong is told in one line, before anything is lost; the last checkpoint stays."""

from __future__ import annotations

import resource
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

from experiments.train import loop
from experiments.train.__main__ import main, parsed
from experiments.train.checkpoints import Checkpoints
from experiments.train.config import Config
from experiments.train.errors import RunError
from experiments.train.folders import Folder
from experiments.train.recipes import RECIPES
from tests.training.conftest import Ended, changed, flags, leaves, write_images


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--epoch", "3"], "Unrecognized options: --epoch, 3 (--help lists all)"),
        (["--form", "single"], "invalid choice 'single' for argument '--form'. Expected one of"),
        (["--epochs", "x"], "Error parsing --epochs: invalid literal"),
        (["imagenet"], "imagenet: no recipe; expected one of digits, fashion-mnist"),
        (["--epochs", "0"], "--epochs 0: expected at least 1"),
        (["--holdout", "1.5"], "--holdout 1.5: expected 0 or more, and below 1"),
        (["--area", "0.5", "0.2"], "--area (0.5, 0.2): expected 0 < smallest"),
        (["--weights", "best", "--holdout", "0"], "would choose by the test images"),
        (["fashion-mnist"], "--data fashion-mnist reads a folder: --folder PATH"),
        (["folder", "--folder", "/nowhere"], "/nowhere: there is no such folder"),
        (["--network", "repvgg_a9"], "--network repvgg_a9: no network is named"),
        (["--override", "depths"], "--override 'depths': expected FIELD=VALUE"),
        (
            ["--network", "no_such:thing", "--override"],
            "--network no_such:thing: ModuleNotFoundError",
        ),
        (["--devices", "16"], "--devices 16: there are 8"),
        (["--batch-size", "4"], "--batch-size 4: no multiple of 8 devices"),
        (["--network", "fastvit_t8", "--form", "plain", "--override"], "has no plain form"),
    ],
)
def test_one_line(
    words: list[str], line: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    try:
        code = main([*words, *(["--output", str(tmp_path)] if "imagenet" not in words else [])])
    except SystemExit as error:
        code = int(error.code or 0)
    printed = capsys.readouterr().err
    assert code in (1, 2)
    assert line in printed
    assert printed.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_every_recipe_is_a_config_with_a_docstring() -> None:
    for name, recipe in RECIPES.items():
        assert isinstance(recipe.CONFIG, Config)
        for word in ("Command:", "Accuracy:", "Time:"):
            assert word in (recipe.__doc__ or ""), name
        assert parsed(name, []) == recipe.CONFIG
        assert parsed(name, ["--seed", "3"]).run.seed == 3


def test_a_run_is_not_overwritten_and_not_mixed(reference: Ended) -> None:
    folder, config = reference.folder, reference.task.config
    with pytest.raises(RunError, match=r"holds a run already; --resume .* --force"):
        folder.prepare(config)
    other = changed(config, run={"resume": True, "seed": 7}, optimizer={"epochs": 5})
    with pytest.raises(RunError, match=r"other settings .*: epochs 2, now 5; seed 0, now 7"):
        folder.prepare(other)
    folder.prepare(changed(config, run={"resume": True, "log_every": 5}))
    assert (folder.checkpoints / str(reference.task.total)).exists()


def test_force_starts_over(tmp_path: Path, config: Config) -> None:
    folder = Folder(tmp_path)
    folder.prepare(config)
    for path in (folder.checkpoints / "5", tmp_path / "notes"):
        path.mkdir(parents=True)
    folder.metrics.touch()
    folder.prepare(changed(config, run={"force": True}))
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "notes"}


def test_a_full_disk(reference: Ended, tmp_path: Path) -> None:
    state = reference.state
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(3, state, 0.5)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, before[1]))  # writes beyond fail, as on full
    try:
        with pytest.raises(RunError, match=r"step 6; that of step 3 is kept: ") as caught:
            checkpoints.save(6, jax.tree.map(lambda leaf: leaf + 1, state), 0.6)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(caught.value)
    checkpoints.close()
    again = Checkpoints(tmp_path)
    assert (again.last, again.best) == (3, 3)
    restored = leaves(again.restore(3, state))
    assert all(np.array_equal(leaf, restored[path]) for path, leaf in leaves(state).items())
    with pytest.raises(RunError, match="cannot read the checkpoint of step 3"):
        again.restore(3, {"other": state["tree"]})
    again.close()


def test_an_image_that_is_damaged_on_the_way(
    reference: Ended, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends the run in one line, and what was saved before goes on later."""
    images = type(reference.task.splits.train.images)
    read, count = images.read, iter(range(100))

    def damaged(*arguments: object) -> object:
        if next(count) == 8:
            raise RunError("dog/1.JPEG: no image, or damaged")
        return read(*arguments)  # type: ignore[arg-type]

    folder = Folder(tmp_path / "run")
    folder.prepare(config)
    checkpoints = Checkpoints(folder.checkpoints)
    monkeypatch.setattr(images, "read", damaged)
    with pytest.raises(RunError, match=r"dog/1.JPEG: no image"):
        loop.train(reference.task, checkpoints, folder, Console(quiet=True))
    assert checkpoints.last == 6
    checkpoints.close()


def test_a_loss_that_is_no_number(reference: Ended, tmp_path: Path) -> None:
    class Poisoned(type(reference.task)):  # type: ignore[misc]
        def initial_state(self) -> object:
            state = super().initial_state()
            state["tree"]["params"]["head"]["bias"] += np.nan
            return state

    task = Poisoned(**{f: getattr(reference.task, f) for f in reference.task.__dataclass_fields__})
    task.__dict__["step"] = reference.task.step
    folder = Folder(tmp_path / "run")
    folder.prepare(task.config)
    checkpoints = Checkpoints(folder.checkpoints)
    with pytest.raises(RunError, match="step 1: the loss is nan; a lower --learning-rate"):
        loop.train(task, checkpoints, folder, Console(quiet=True))
    assert checkpoints.last is None
    checkpoints.close()


def test_interrupted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("experiments.train.__main__.run", stop)
    assert main([]) == 130
    assert capsys.readouterr().err.endswith("--resume goes on after the last checkpoint\n")


def test_too_low_an_accuracy_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("experiments.train.__main__.run", lambda *_: {"test_accuracy_fused": 0.5})
    assert main(["--required-accuracy", "0.4"]) == 0
    assert main(["--required-accuracy", "0.6"]) == 1
    assert "test accuracy 50.00%, required 60.00%" in capsys.readouterr().err


def test_the_tiny_run_is_what_its_flags_say(config: Config, tmp_path: Path) -> None:
    write_images(tmp_path)
    name, *words = flags(config)
    found = parsed(name, words)
    assert found.optimizer == config.optimizer
    assert found.data == config.data
    assert found.network == config.network
