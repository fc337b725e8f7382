"""Image sets by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from experiments.train.config import Data
from experiments.train.data import cifar, folder, idx
from experiments.train.data.arrays import ArrayImages, statistics
from experiments.train.data.images import Array, Images, ImageSet, Splits, held_out, whole
from experiments.train.errors import RunError
from repjax.models.network import IMAGENET_MEAN, IMAGENET_STD

__all__ = ["ImageSet", "Splits", "load"]


def load(config: Data, seed: int) -> Splits:
    """Training, held-out and test images, as the settings say.

    Args:
        config: the settings.
        seed: of what is held out.

    Raises:
        RunError: a folder or file is missing or damaged.
    """
    if config.data == "folder":
        return _from_folder(config, seed)
    if config.data == "digits":
        from experiments.train.data.digits import digits  # scikit-learn takes seconds

        (x, y), (x_test, y_test) = digits()
        classes = tuple("0123456789")
    else:
        place = _folder(config)
        read = idx.read_split if config.data == "fashion-mnist" else cifar.read_split
        (x, y), (x_test, y_test) = read(place, "train"), read(place, "test")
        names = cifar.CLASSES if config.data == "cifar10" else FASHION
        classes = names if max(y.max(), y_test.max()) < 10 else _numbers(y)
    mean, std = statistics(x)
    train, test = ArrayImages(x, config.shift, config.flip), ArrayImages(x_test)
    return _splits(config, seed, (train, y), (test, y_test), classes, mean, std)


FASHION = (
    *("T-shirt", "trousers", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
)


def _from_folder(config: Data, seed: int) -> Splits:
    place = _folder(config)
    classes, paths, y = folder.find(place / "train")
    again, test_paths, y_test = folder.find(place / "val")
    if again != classes:
        odd = sorted(set(classes) ^ set(again))
        raise RunError(f"{place}: train/ and val/ have other classes: {', '.join(odd[:5])}")
    train = folder.FolderImages(paths, config.size, config.area, config.flip)
    test = folder.FolderImages(test_paths, config.size)
    return _splits(config, seed, (train, y), (test, y_test), classes, IMAGENET_MEAN, IMAGENET_STD)


def _splits(
    config: Data,
    seed: int,
    train: tuple[Images, Array],
    test: tuple[Images, Array],
    classes: tuple[str, ...],
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Splits:
    training, testing = whole(*train), whole(*test)
    watch = testing
    if config.holdout:
        training, watch = held_out(training, config.holdout, seed)
    if not len(training):
        raise RunError(f"--holdout {config.holdout} leaves no image to train with")
    return Splits(training, watch, testing, classes, mean, std)


def _folder(config: Data) -> Path:
    if config.folder is None:
        raise RunError(f"--data {config.data} reads a folder: --folder PATH")
    if not config.folder.is_dir():
        raise RunError(f"{config.folder}: there is no such folder")
    return config.folder


def _numbers(labels: Array) -> tuple[str, ...]:
    return tuple(map(str, range(int(np.max(labels)) + 1)))
