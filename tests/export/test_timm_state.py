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
        layers = ["stem", *(f"stages.{stage}.0" for stage in range(4))]
        modules = [*(f"{layer}.reparam_conv" for layer in layers), "head.fc"]
        wanted = {f"{module}.{leaf}" for module in modules for leaf in ("weight", "bias")}
        assert set(repjax.torch.read(path)) == wanted
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


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["repvgg_a0", "mobileone_s0", "mobileone_s4", "fastvit_t8", "repvit_m0_9", "repghostnet_050"],
)
def test_timm_loads_it_strictly_and_agrees(tmp_path: Path, name: str, x64: None) -> None:
    """Runs where the extra `peers` is installed. In float64: random deep networks are chaotic."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("torchvision")
    from safetensors.torch import load_file

    from experiments import _timm

    ours = repjax.models.create(name, param_dtype=np.float64)
    theirs = _timm.create(name)
    _timm.settle(theirs, 64)
    state = {key: value.numpy() for key, value in theirs.double().state_dict().items()}
    variables = repjax.fuse_params(repjax.torch.load(ours, state, naming="timm"))
    repjax.export.timm(tmp_path / "s.safetensors", ours, variables)
    deployed = _timm.reparameterized(_timm.create(name)).double()
    deployed.load_state_dict(load_file(tmp_path / "s.safetensors"), strict=True)
    images = np.random.default_rng(0).normal(size=(2, 64, 64, 3))
    with torch.no_grad():
        found = deployed(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()
        native = theirs(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()
    assert np.abs(found - native).max() <= 1e-6 * np.abs(native).max()
