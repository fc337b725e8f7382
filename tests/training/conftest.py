"""One tiny run for all: 8x8 images of three classes, a RepVGG of two blocks, 20 steps."""

from __future__ import annotations

import dataclasses
import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from rich.console import Console

from experiments.train import loop
from experiments.train.checkpoints import Checkpoints
from experiments.train.config import Config, Data, Finish, Network, Optimizer, Run
from experiments.train.data import idx
from experiments.train.folders import Folder
from experiments.train.task import Task, make_task

CLASSES = 3


def write_idx(path: Path, array: Any) -> None:
    """A file of bytes as MNIST has it, compressed where its name ends so."""
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    content = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_images(folder: Path) -> None:
    """Stripes of three directions, with noise: 180 to train with and 40 to test."""
    random = np.random.default_rng(0)
    rows, columns = np.indices((8, 8))
    stripes = np.stack([rows % 3, columns % 3, (rows + columns) % 3]) * 80
    for split, count, ending in (("train", 180, ".gz"), ("test", 40, "")):
        labels = random.integers(0, CLASSES, count)
        noise = random.integers(0, 90, (count, 8, 8))
        images, names = stripes[labels] + noise, idx.FILES[split]
        write_idx(folder / f"{names[0]}{ending}", images)
        write_idx(folder / names[1], labels)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the images."""
    folder = tmp_path_factory.mktemp("images")
    write_images(folder)
    return folder


@pytest.fixture(scope="session")
def config(images: Path) -> Config:
    """The tiny run's settings, on one device."""
    return Config(
        data=Data(data="fashion-mnist", folder=images, holdout=0.1, shift=1, flip=True, threads=1),
        network=Network(
            override=("depths=(1,)", "widths=(4,)", "strides=(1,)", "stem_strides=2"),
        ),
        optimizer=Optimizer(
            epochs=2, batch_size=16, optimizer="sgd", learning_rate=0.05, average=0.9
        ),
        run=Run(devices=1, save_every=3, log_every=1),
        finish=Finish(),
    )


def changed(config: Config, **sections: dict[str, Any]) -> Config:
    """The settings with some of them replaced, by section."""
    changes = {
        name: dataclasses.replace(getattr(config, name), **values)
        for name, values in sections.items()
    }
    return dataclasses.replace(config, **changes)


def flags(config: Config) -> list[str]:
    """The tiny run's settings as the command line has them."""
    network, optimizer, run = config.network, config.optimizer, config.run
    return [
        "fashion-mnist",
        *["--folder", str(config.data.folder), "--shift", "1", "--threads", "1"],
        *["--override", *network.override, "--form", network.form],
        *["--epochs", str(optimizer.epochs), "--batch-size", "16", "--learning-rate", "0.05"],
        *["--average", str(optimizer.average), "--weight-decay", str(optimizer.weight_decay)],
        *["--no-nesterov", "--save-every", str(run.save_every), "--log-every", "1"],
    ]


@dataclasses.dataclass(frozen=True)
class Ended:
    """A run that has made its last step."""

    task: Task
    state: Any
    folder: Folder


def trained(task: Task, path: Path, *, resume: bool = False) -> Ended:
    """Train in a folder, or go on after its last checkpoint."""
    folder = Folder(path)
    folder.prepare(changed(task.config, run={"resume": resume}))
    checkpoints = Checkpoints(folder.checkpoints)
    state = loop.train(task, checkpoints, folder, Console(quiet=True))
    checkpoints.close()
    return Ended(task, state, folder)


@pytest.fixture(scope="session")
def reference(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """The tiny run from beginning to end, undisturbed."""
    return trained(make_task(config), tmp_path_factory.mktemp("run") / "reference")


def leaves(tree: Any) -> dict[str, np.ndarray[Any, Any]]:
    """Arrays by path."""
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in paths}


def largest_difference(one: Any, two: Any, scale: Callable[..., Any] = np.abs) -> float:
    """Of two trees of the same structure, relative to the largest number of each array."""
    first, second = leaves(one), leaves(two)
    assert first.keys() == second.keys()
    return max(
        float(np.abs(first[key] - second[key]).max() / (scale(first[key]).max() + 1e-6))
        for key in first
    )
