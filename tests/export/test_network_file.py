"""Networks in safetensors files: everything comes back, damaged and foreign files are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import repjax
from repjax._files import FileError
from tests.export.networks import SIZES, random_like


def test_both_forms_come_back_as_they_were(tmp_path: Path, network: Any) -> None:
    deployed = network[:2]
    train = repjax.models.create("repvgg_a0", num_classes=3, **SIZES)
    shapes = jax.eval_shape(train.init, jax.random.key(0), network[2])
    for number, (model, variables) in enumerate([deployed, (train, random_like(shapes))]):
        path = tmp_path / f"{number}.safetensors"
        repjax.export.safetensors(path, model, variables)
        again, found = repjax.load(path)
        assert again == model
        assert jax.tree.structure(found) == jax.tree.structure(variables)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(variables), strict=True):
            assert a.dtype == b.dtype
            assert np.array_equal(a, b)


def test_types_are_kept(tmp_path: Path, network: Any) -> None:
    model, variables, _ = network
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), variables)
    path = tmp_path / "half.safetensors"
    repjax.export.safetensors(path, model, half)
    assert {leaf.dtype for leaf in jax.tree.leaves(repjax.load(path)[1])} == {jnp.dtype("bfloat16")}


def test_other_variables_and_modules_are_refused(tmp_path: Path, network: Any) -> None:
    model, variables, _ = network
    path = tmp_path / "n.safetensors"
    train = repjax.models.create("repvgg_a0", num_classes=3, **SIZES)
    with pytest.raises(ValueError, match="they are of its deploy form, pass that"):
        repjax.export.safetensors(path, train, variables)
    other = {"params": variables["params"] | {"head": {"kernel": jnp.ones((2, 2))}}}
    with pytest.raises(ValueError, match=r"head/bias is missing; .*head/kernel has shape \(2, 2\)"):
        repjax.export.safetensors(path, model, other)
    with pytest.raises(TypeError, match="no network of repjax"):
        repjax.export.safetensors(path, nn.Dense(3), {"params": {}})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"suffix is \.safetensors, found \.npz"):
        repjax.export.safetensors(tmp_path / "n.npz", model, variables)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def written(tmp_path: Path, network: Any) -> Path:
    path = tmp_path / "network.safetensors"
    repjax.export.safetensors(path, *network[:2])
    return path


def test_an_existing_file_is_kept(written: Path, network: Any) -> None:
    before = written.read_bytes()
    with pytest.raises(FileExistsError, match="force=True"):
        repjax.export.safetensors(written, *network[:2])
    assert written.read_bytes() == before
    repjax.export.safetensors(written, *network[:2], force=True)


@pytest.mark.parametrize(
    ("about", "words"),
    [
        (None, "holds arrays and no network"),
        ("{", "its metadata are damaged"),
        ("[]", "its metadata are damaged"),
        ({"version": 99}, "of version 99, this repjax reads"),
        ({"format": "another"}, "is another of version 1"),
        ({"network": "repvgg_z9"}, "no network is named 'repvgg_z9'"),
        ({"overrides": {"colour": 1}}, "knows no colour"),
        ({"overrides": {"preprocessing": {"colour": 1}}}, "cannot be made here"),
        ({"overrides": {}}, "is not whole: .*and .* more"),
    ],
    ids=str,
)
def test_files_of_other_kinds_are_named(written: Path, about: Any, words: str) -> None:
    arrays = load_file(written)
    if isinstance(about, dict):
        whole = {"format": "repjax network", "version": 1, "network": "repvgg_a0", "overrides": {}}
        about = json.dumps(whole | about)
    save_file(arrays, written, metadata=None if about is None else {"repjax": about})
    with pytest.raises(FileError, match=words) as caught:
        repjax.load(written)
    assert str(caught.value).startswith(str(written))
    assert len(str(caught.value).splitlines()) == 1


def test_damaged_files_are_named(written: Path) -> None:
    content = written.read_bytes()
    for damage in (b"", content[:100], content[:-9], b"PK" + content, b"\x80" + content):
        written.write_bytes(damage)
        with pytest.raises(FileError, match=r"network\.safetensors: is "):
            repjax.load(written)
    with pytest.raises(FileNotFoundError):
        repjax.load(written.with_name("none.safetensors"))
