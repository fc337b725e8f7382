"""Eight devices, and two processes, compute what one device computes, to rounding."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding

from experiments.train import devices, log
from experiments.train.config import Config, Run
from experiments.train.errors import RunError
from experiments.train.task import make_task
from repjax.torch import files
from tests.training.conftest import Ended, changed, flags, largest_difference, trained
from tests.training.processes import free_port, printed, start

ROUNDING = 2e-4
"""After twenty steps of training, relative to the largest number of each array."""


def test_eight_devices(reference: Ended, config: Config, tmp_path: Path) -> None:
    ended = trained(make_task(changed(config, run={"devices": 8})), tmp_path / "run")
    for leaf in jax.tree.leaves(ended.state):
        assert isinstance(leaf.sharding, NamedSharding)
        assert len(leaf.sharding.device_set) == 8
    assert 0 < largest_difference(reference.state, ended.state) < ROUNDING


def test_two_processes(reference: Ended, config: Config, tmp_path: Path) -> None:
    path = tmp_path / "run"
    address = ["--coordinator", f"127.0.0.1:{free_port()}", "--processes", "2"]
    both = [
        start([*flags(config), *address, "--process", str(number)], path, devices=1)
        for number in range(2)
    ]
    for number, process in enumerate(both):
        assert process.wait(300) == 0, printed(path, number)
    one, two = log.read(reference.folder.metrics), log.read(path / "metrics.jsonl")
    assert [record["step"] for record in one] == [record["step"] for record in two]
    for first, second in zip(one, two, strict=True):
        for name in first.keys() - {"images_per_second"}:
            assert first[name] == pytest.approx(second[name], abs=1e-4)
    found = files.read(path / "trained.safetensors")
    average = reference.state["average"]
    for collection in ("params", "batch_stats"):
        for path_of, leaf in jax.tree_util.tree_flatten_with_path(average[collection])[0]:
            name = "/".join([collection, *(entry.key for entry in path_of)])
            np.testing.assert_allclose(found[name], leaf, atol=ROUNDING * np.abs(leaf).max() + 1e-6)
    assert json.loads((path / "result.json").read_text())["verified"]
    assert "accuracy" in printed(path, 0)
    assert "accuracy" not in printed(path, 1)


def test_what_cannot_be_divided_is_refused() -> None:
    there = devices.find(Run(devices=8))
    assert there.rows(16) == slice(0, 16)
    with pytest.raises(RunError, match="--batch-size 12: no multiple of 8 devices"):
        there.rows(12)
    with pytest.raises(RunError, match="--devices 9: there are 8"):
        devices.find(Run(devices=9))
    with pytest.raises(RunError, match="need --coordinator"):
        devices.connect(Run(processes=2))
    with pytest.raises(RunError, match="needs --processes and --process"):
        devices.connect(Run(coordinator="127.0.0.1:1234"))
