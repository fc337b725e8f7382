"""Readers of images: what they give, and one line for each damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.train import data
from experiments.train.config import Data
from experiments.train.data import cifar, folder, idx
from experiments.train.data.arrays import ArrayImages, statistics
from experiments.train.data.digits import digits
from experiments.train.errors import RunError
from tests.training.conftest import write_idx, write_images


def test_digits_are_those_of_scikit_learn() -> None:
    (x, y), (x_test, y_test) = digits()
    assert (x.shape, x_test.shape) == ((1437, 8, 8, 1), (360, 8, 8, 1))
    assert set(y) == set(y_test) == set(range(10))
    assert (x.dtype, x.min(), x.max()) == (np.uint8, 0, 255)


def test_idx_plain_and_compressed(tmp_path: Path) -> None:
    write_images(tmp_path)
    splits = data.load(Data(data="fashion-mnist", folder=tmp_path, holdout=0.1), seed=0)
    assert (len(splits.train), len(splits.watch), len(splits.test)) == (162, 18, 40)
    assert splits.train.images.shape == (8, 8, 1)
    assert len(splits.classes) == 10
    pixels, labels = idx.read_split(tmp_path, "train")
    assert splits.mean[0] == pytest.approx((pixels / 255).mean())
    assert splits.std[0] == pytest.approx((pixels / 255).std())
    drawn = np.sort(np.concatenate([splits.train.indices, splits.watch.indices]))
    assert drawn.tolist() == list(range(180))
    found, of = splits.watch.read(np.arange(3))
    assert np.array_equal(found, pixels[splits.watch.indices[:3]])
    assert np.array_equal(of, labels[splits.watch.indices[:3]])
    everything = data.load(Data(data="fashion-mnist", folder=tmp_path, holdout=0), seed=0)
    assert (len(everything.train), everything.watch) == (180, everything.test)


def test_damaged_idx_files(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="has neither train-images-idx3-ubyte nor"):
        idx.read_split(tmp_path, "train")
    write_images(tmp_path)
    plain = tmp_path / "t10k-images-idx3-ubyte"
    plain.write_bytes(plain.read_bytes()[:-5])
    with pytest.raises(RunError, match=r"t10k-images.*truncated: 2555 bytes for 40x8x8"):
        idx.read_split(tmp_path, "test")
    plain.write_bytes(b"\x89PNG....")
    with pytest.raises(RunError, match="no IDX file of bytes with 3 axes"):
        idx.read_split(tmp_path, "test")
    write_idx(plain, np.zeros((39, 8, 8)))
    with pytest.raises(RunError, match=r"39 images, .* 40 labels"):
        idx.read_split(tmp_path, "test")
    packed = tmp_path / "train-images-idx3-ubyte.gz"
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(RunError, match=r"train-images.*truncated or damaged"):
        idx.read_split(tmp_path, "train")


def test_cifar(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    records = random.integers(0, 256, (12, cifar.RECORD)).astype(np.uint8)
    records[:, 0] %= 10
    for number, name in enumerate((*cifar.FILES["train"], *cifar.FILES["test"])):
        (tmp_path / name).write_bytes(records[2 * number : 2 * number + 2].tobytes())
    splits = data.load(Data(data="cifar10", folder=tmp_path, holdout=0), seed=0)
    assert (len(splits.train), len(splits.test)) == (10, 2)
    pixels, labels = splits.train.read(np.arange(10))
    assert np.array_equal(labels, records[:10, 0])
    assert np.array_equal(pixels[3, :, :, 1].ravel(), records[3, 1 + 1024 : 1 + 2048])
    broken = tmp_path / "data_batch_3.bin"
    broken.write_bytes(broken.read_bytes()[:-1])
    with pytest.raises(RunError, match=r"data_batch_3.bin: truncated or damaged: 6145 bytes"):
        cifar.read_split(tmp_path, "train")
    broken.write_bytes(b"\x0b" + records[0].tobytes()[1:])
    with pytest.raises(RunError, match="label 11"):
        cifar.read_split(tmp_path, "train")
    broken.unlink()
    with pytest.raises(RunError, match=r"data_batch_3.bin: No such file"):
        cifar.read_split(tmp_path, "train")


def make_folder(path: Path) -> None:
    random = np.random.default_rng(0)
    for split, count in (("train", 3), ("val", 2)):
        for name, ending in (("cat", "png"), ("dog", "JPEG")):
            (path / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 256, (20 + number, 30, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(path / split / name / f"{number}.{ending}")


def test_a_folder_of_images(tmp_path: Path) -> None:
    make_folder(tmp_path)
    config = Data(data="folder", folder=tmp_path, holdout=0.2, size=16, flip=True)
    splits = data.load(config, seed=0)
    assert splits.classes == ("cat", "dog")
    assert (len(splits.train), len(splits.watch), len(splits.test)) == (5, 1, 4)
    images, labels = splits.test.read(np.arange(4))
    assert (images.shape, images.dtype) == ((4, 16, 16, 3), np.uint8)
    assert labels.tolist() == [0, 0, 1, 1]
    draws = np.random.default_rng(0).random((2, 6))
    one, _ = splits.train.read(np.array([1, 1]), draws)
    again, _ = splits.train.read(np.array([1, 1]), draws)
    assert np.array_equal(one, again)
    assert not np.array_equal(one[0], one[1])


def test_a_broken_folder(tmp_path: Path) -> None:
    config = Data(data="folder", folder=tmp_path / "missing")
    with pytest.raises(RunError, match="missing: there is no such folder"):
        data.load(config, seed=0)
    with pytest.raises(RunError, match="--data folder reads a folder: --folder PATH"):
        data.load(Data(data="folder"), seed=0)
    make_folder(tmp_path)
    broken = tmp_path / "val" / "dog" / "1.JPEG"
    broken.write_bytes(broken.read_bytes()[:400])
    splits = data.load(Data(data="folder", folder=tmp_path, size=16), seed=0)
    with pytest.raises(RunError, match=r"val/dog/1.JPEG: no image, or damaged"):
        splits.test.read(np.arange(4))
    broken.write_bytes(b"not an image")
    with pytest.raises(RunError, match=r"val/dog/1.JPEG: no image, or damaged"):
        splits.test.read(np.arange(4))
    (tmp_path / "val" / "emu").mkdir()
    with pytest.raises(RunError, match="val/emu: class without an image"):
        folder.find(tmp_path / "val")
    (tmp_path / "val" / "emu" / "1.png").touch()
    with pytest.raises(RunError, match="have other classes: emu"):
        data.load(Data(data="folder", folder=tmp_path), seed=0)
    with pytest.raises(RunError, match="has no sub-folder"):
        folder.find(tmp_path / "val" / "cat")


def test_crops_stay_inside() -> None:
    draws = np.random.default_rng(0).random((200, 6))
    for size in ((100, 40), (40, 100), (1, 1)):
        for row in draws:
            left, upper, right, lower = folder.crop(size, (0.08, 1.0), row)
            assert 0 <= left < right <= size[0] + 1e-9
            assert 0 <= upper < lower <= size[1] + 1e-9


def test_moves_by_hand() -> None:
    pixels = np.arange(1, 10, dtype=np.uint8).reshape(1, 3, 3, 1)
    images = ArrayImages(pixels, shift=1)
    middle, corner = np.full((1, 6), 0.5), np.zeros((1, 6))
    assert np.array_equal(images.read(np.array([0]), middle), pixels)
    moved = images.read(np.array([0]), corner)[0, :, :, 0]
    assert moved.tolist() == [[0, 0, 0], [0, 1, 2], [0, 4, 5]]


def test_statistics_of_a_constant_channel() -> None:
    assert statistics(np.full((2, 2, 2, 1), 255, np.uint8)) == ((1.0,), (1.0,))
