"""A run that was killed goes on to the same numbers, bit by bit."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from experiments.train import log
from experiments.train.checkpoints import Checkpoints
from experiments.train.config import Config
from tests.training.conftest import Ended, flags, leaves, trained
from tests.training.processes import printed, start, wait_for_step

SPEED = "images_per_second"


def records(ended: Ended) -> list[dict[str, float]]:
    found = log.read(ended.folder.metrics)
    return [{key: value for key, value in record.items() if key != SPEED} for record in found]


def require_equal(one: Ended, two: Ended) -> None:
    """The same state and the same metrics, bit by bit."""
    first, second = leaves(one.state), leaves(two.state)
    assert first.keys() == second.keys()
    for path, leaf in first.items():
        assert np.array_equal(leaf, second[path]), path
    assert records(one) == records(two)


def test_killed_and_resumed(reference: Ended, config: Config, tmp_path: Path) -> None:
    path = tmp_path / "run"
    process = start([*flags(config), "--devices", "1"], path)
    wait_for_step(process, path, 7)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    checkpoints = Checkpoints(path / "checkpoints")
    assert checkpoints.last is not None
    assert 6 <= checkpoints.last < reference.task.total
    checkpoints.close()
    require_equal(reference, trained(reference.task, path, resume=True))


def test_the_last_and_the_best_are_kept(reference: Ended) -> None:
    checkpoints = Checkpoints(reference.folder.checkpoints)
    watched = {
        record["step"]: record["watched_accuracy"]
        for record in log.read(reference.folder.metrics)
        if "watched_accuracy" in record
    }
    assert checkpoints.last == reference.task.total
    assert watched[checkpoints.best] == max(watched.values())
    assert set(checkpoints.manager.all_steps()) == {checkpoints.last, checkpoints.best}
    checkpoints.close()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_killed_at_random_moments(
    reference: Ended, config: Config, tmp_path: Path, seed: int
) -> None:
    """Before the first checkpoint, while one is written, after the last; again and again."""
    draw = random.Random(seed)
    path = tmp_path / "run"
    arguments = [*flags(config), "--devices", "1", "--resume"]
    for _ in range(4):
        process = start(arguments, path)
        before = len(log.read(path / "metrics.jsonl"))
        wait_for_step(process, path, min(before + draw.randrange(6), reference.task.total))
        time.sleep(draw.random() * 0.3)
        process.kill()
        process.wait()
    process = start(arguments, path)
    assert process.wait() == 0, printed(path)
    require_equal(reference, trained(reference.task, path, resume=True))
