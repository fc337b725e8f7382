"""State dicts for timm: names of the official deploy form, and the same variables when loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import repjax
from tests.export.networks import SIZES


def test_it_is_loaded_as_the_same_variables(tmp_path: Path, network: Any) -> None:
    model, variables, _ = network
    for suffix in (".safetensors", ".npz"):
        path = tmp_path / f"state{suffix}"
        repjax.export.timm(path, model, variables)
        names = set(repjax.torch.read(path))
        assert {"stem.reparam_conv.weight", "head.fc.bias"} <= names or "head.fc.weight" in names
        again = repjax.torch.load(model, path)
        for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(variables), strict=True):
            assert np.array_equal(one, other)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["state.npz", "state.safetensors"]
    with pytest.raises(FileExistsError, match="force=True"):
        repjax.export.timm(path, model, variables)


def test_train_variables_and_a_network_that_changed_are_refused(
    tmp_path: Path, network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, variables, images = network
    train = repjax.models.create("repvgg_a0", num_classes=3, **SIZES)
    shapes = jax.eval_shape(train.init, jax.random.key(0), images)
    with pytest.raises(ValueError, match="train form"):
        repjax.export.timm(tmp_path / "s.npz", model, shapes)
    other = jax.tree.map(lambda leaf: 2 * leaf, variables)
    monkeypatch.setattr("repjax.export.timm_state.load", lambda *args, **options: other)
    with pytest.raises(ValueError, match=r"s\.npz: is not written, it was read back as another"):
        repjax.export.timm(tmp_path / "s.npz", model, variables)
    assert not list(tmp_path.iterdir())
