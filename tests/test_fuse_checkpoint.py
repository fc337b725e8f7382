"""`experiments.fuse_checkpoint`: every way in, every way out, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import traverse_util

import repjax
from experiments.fuse_checkpoint import main
from repjax.torch import files
from tests.export.networks import SIZES, random_like

FLAGS = ["--model", "repvgg_a0", "--num-classes", "3", "--image-size", "16"]
FLAGS += ["--set", *(f"{name}={value}".replace(" ", "") for name, value in SIZES.items())]


@pytest.fixture(scope="module")
def model() -> Any:
    return repjax.models.create("repvgg_a0", num_classes=3, **SIZES)


@pytest.fixture(scope="module")
def variables(model: Any) -> Any:
    return random_like(jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, 16, 16, 3))))


@pytest.fixture(scope="module")
def source(variables: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "variables.npz"
    files.write(path, traverse_util.flatten_dict(variables, sep="/"))
    return path


def same(found: Any, expected: Any) -> None:
    found, expected = (traverse_util.flatten_dict(tree, sep="/") for tree in (found, expected))
    assert found.keys() == expected.keys()
    for name in expected:
        assert np.array_equal(found[name], expected[name])


def test_without_a_model_trees_come_in_and_go_out(
    source: Path, variables: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    orbax = tmp_path / "orbax"
    with ocp.PyTreeCheckpointer() as checkpointer:
        state = {"params": variables["params"], "batch_stats": variables["batch_stats"]}
        checkpointer.save(orbax, {"model": state, "step": np.int32(3)})
    expected = repjax.fuse_params(variables)
    steps = [source, orbax], [tmp_path / "o.safetensors", tmp_path / "o.npz", tmp_path / "folder"]
    for given in steps[0]:
        for target in steps[1]:
            assert main([str(given), str(target), "--force"]) == 0
    words = capsys.readouterr().out
    assert words.count("5 blocks equal their folds in float64") == 6
    for path in steps[1][:2]:
        same(traverse_util.unflatten_dict(dict(repjax.torch.read(path)), sep="/"), expected)
    with ocp.PyTreeCheckpointer() as checkpointer:
        same(checkpointer.restore(steps[1][2]), expected)


def test_with_a_model_networks_and_programs_go_out(
    source: Path, model: Any, variables: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network, program = tmp_path / "n.safetensors", tmp_path / "n.stablehlo"
    assert main([str(source), str(network), *FLAGS]) == 0
    assert "the whole network at (2, 16, 16, 3): equal to rounding" in capsys.readouterr().out
    again, deployed = repjax.load(network)
    assert again == model.deploy()
    same(deployed, repjax.fuse_params(variables))
    assert main([str(source), str(program), *FLAGS]) == 0
    x = jnp.ones((3, 16, 16, 3))
    found = jax.export.deserialize(bytearray(program.read_bytes())).call(x)
    assert np.allclose(found, model.apply(variables, x), rtol=1e-3, atol=1e-4)


def test_refusals_are_one_line_and_write_nothing(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "state.npz"
    files.write(state, {"stage0.rbr_dense.conv.weight": np.ones((2, 2, 3, 3))})
    (tmp_path / "no orbax").mkdir()
    target = tmp_path / "out.npz"
    cases: list[tuple[list[Any], str]] = [
        ([tmp_path / "none.npz", target], "no such file"),
        ([state, target], "--model says of which network"),
        ([tmp_path / "no orbax", target], "is no whole Orbax checkpoint"),
        ([source, source, "--force"], "source and target are the same"),
        ([source, state], "exists already and is kept"),
        ([source, tmp_path / "out.pt"], "out.pt: written are .safetensors"),
        ([source, tmp_path / "out.onnx"], "this needs the network; name it by --model"),
        ([source, target, "--set", "depths=1"], "that --model names"),
        ([source, target, "--model", "repvgg_z9"], "no network is named 'repvgg_z9'"),
        ([source, target, "--model", "repvgg_a0", "--image-size", "0"], "at least 1, found 0"),
    ]
    for arguments, words in cases:
        assert main([str(one) for one in arguments]) == 1
        said = capsys.readouterr().err
        assert words in said
        assert len(said.splitlines()) <= 2
    assert not target.exists()


def test_a_fold_that_is_not_exact_is_refused(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    right = repjax.fuse_params

    def wrong(variables: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf * 1.000001, right(variables))

    monkeypatch.setattr("repjax.fuse_params", wrong)
    jax.clear_caches()
    assert main([str(source), str(tmp_path / "out.npz")]) == 1
    said = capsys.readouterr().err
    assert "nothing is written, 5 of 5 blocks differ from their folds" in said
    assert "stage1_block0" in said or "stem" in said
    assert not list(tmp_path.iterdir())
    jax.clear_caches()
