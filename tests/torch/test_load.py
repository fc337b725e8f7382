"""The loader: what it accepts, converts and refuses, on small RepVGG networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import repjax
from repjax import models
from repjax.torch import StateDictError, load, read, write
from repjax.torch.__main__ import main
from repjax.torch.fit import flat
from repjax.torch.names import names_of, oihw
from tests.models.values import random_variables

SIZES: dict[str, Any] = {"depths": (1, 2, 1, 1), "widths": (4, 4, 6, 8), "squeeze_excite": 0.5}


def network(**fields: Any) -> models.Network:
    return models.create("repvgg_a0", num_classes=5, **SIZES, **fields)


def variables_of(model: models.Network) -> dict[str, Any]:
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    variables: dict[str, Any] = random_variables(jax.eval_shape(model.init, jax.random.key(0), x))
    return variables


def state_of(model: models.Network, variables: Any, naming: str = "original") -> dict[str, Any]:
    """The state dict that PyTorch would have, by the same table of names."""
    names = names_of(type(model))[naming]
    state = {
        names.key(place[1:]): oihw(np.asarray(leaf)) if place[-1] == "kernel" else np.asarray(leaf)
        for place, leaf in flat(variables).items()
    }
    for key in [key for key in state if key.endswith("running_mean")]:
        state[key.replace("running_mean", "num_batches_tracked")] = np.asarray(7)
    for key in [key for key in state if ".se." in key or ".attn." in key]:
        if key.endswith("weight"):  # PyTorch has 1x1 convolutions there
            state[key] = state[key][..., None, None]
    return state


def assert_same(found: Any, wanted: Any) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("naming", ["original", "timm"])
@pytest.mark.parametrize("deployed", [False, True], ids=["train", "deploy"])
def test_both_namings_and_both_forms_are_found(naming: str, deployed: bool) -> None:
    model = network(deployed=deployed)
    variables = variables_of(model)
    state = state_of(model, variables, naming)
    assert_same(load(network(), state), variables)


def test_a_train_form_is_fused_for_a_deployed_model() -> None:
    variables = variables_of(network())
    state = state_of(network(), variables)
    assert_same(load(network(deployed=True), state), repjax.fuse_params(variables))


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_files_and_the_command_line(tmp_path: Path, suffix: str) -> None:
    model = models.create("repvgg_a0", num_classes=5, **SIZES)
    variables = variables_of(model)
    path = tmp_path / f"weights{suffix}"
    write(path, state_of(model, variables))
    assert_same(load(model, path), variables)
    assert main(["repvgg_a1", str(path), str(tmp_path / "out.npz")]) == 1
    assert not (tmp_path / "out.npz").exists()


def test_the_command_line_converts(tmp_path: Path) -> None:
    model = models.create("repvgg_a0", num_classes=5)
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float16), shapes_of(model))
    write(tmp_path / "in.safetensors", state_of(model, variables))
    target = tmp_path / "out.safetensors"
    arguments = ["repvgg_a0", str(tmp_path / "in.safetensors"), str(target), "--num-classes", "5"]
    assert main(arguments) == 0
    written = read(target)
    assert {tuple(name.split("/")) for name in written} == set(flat(variables))
    assert {array.dtype for array in written.values()} == {np.dtype(np.float32)}


def shapes_of(model: models.Network) -> Any:
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), x)


def test_our_files_are_those_of_the_safetensors_package(tmp_path: Path) -> None:
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b": np.float32(1), "c": np.zeros((0, 2), np.int8)}
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    write(tmp_path / "ours.safetensors", arrays)
    safetensors.numpy.save_file(arrays, tmp_path / "theirs.safetensors")
    for found in (
        safetensors.numpy.load_file(tmp_path / "ours.safetensors"),
        read(tmp_path / "theirs.safetensors"),
    ):
        assert_same(dict(found), arrays)


def test_a_new_head_replaces_one_of_other_classes() -> None:
    model, key = network(), jax.random.key(3)
    variables = variables_of(model)
    state = state_of(model, variables)
    state["linear.weight"] = np.zeros((1000, 8), np.float32)
    state["linear.bias"] = np.zeros(1000, np.float32)
    with pytest.raises(StateDictError, match=r"linear\.weight: has shape \(1000, 8\), expected"):
        load(model, state)
    loaded = load(model, state, new_head=key)
    assert float(jnp.abs(loaded["params"]["head"]["kernel"]).max()) > 0
    rest = [dict(tree["params"]) for tree in (loaded, variables)]
    for tree in rest:
        del tree["head"]
    assert_same(*rest)
    assert load(model, {k: v for k, v in state.items() if "linear" not in k}, new_head=key)


def test_float16_is_converted_and_float64_kept(x64: None) -> None:
    model = network()
    variables = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), variables_of(model))
    loaded = load(model, state_of(model, variables))
    assert_same(loaded, jax.tree.map(lambda leaf: leaf.astype(jnp.float32), variables))
    wide = network(param_dtype=jnp.float64)
    assert_same(
        load(wide, state_of(model, variables)),
        jax.tree.map(lambda leaf: leaf.astype(jnp.float64), variables),
    )


def test_every_problem_is_listed_and_nothing_is_loaded() -> None:
    model = network()
    state = state_of(model, variables_of(model))
    del state["stage1.0.rbr_1x1.bn.bias"]
    state["extra.weight"] = np.ones(3)
    state["stage2.0.rbr_dense.conv.weight"] = np.ones((4, 4, 5, 5), np.float32)
    state["stage2.1.rbr_dense.bn.running_var"] = np.full(4, np.nan)
    state["linear.bias"] = np.ones(5, np.int64)
    with pytest.raises(StateDictError) as caught:
        load(model, state)
    message = str(caught.value)
    assert "5 problems (original naming, train form)" in message
    for line in (
        "stage1.0.rbr_1x1.bn.bias: missing",
        "extra.weight: unexpected",
        "stage2.0.rbr_dense.conv.weight: has shape (4, 4, 5, 5), expected (4, 4, 3, 3)",
        "stage2.1.rbr_dense.bn.running_var: 4 of 4 numbers are not finite",
        "linear.bias: has dtype int64, expected floating point",
    ):
        assert line in message


def test_half_converted_and_foreign_files_are_refused() -> None:
    model = network()
    variables = variables_of(model)
    state = state_of(model, variables)
    deployed = state_of(model, repjax.fuse_params(variables))
    half = {k: v for k, v in state.items() if not k.startswith("stage1")}
    half |= {k: v for k, v in deployed.items() if k.startswith("stage1")}
    with pytest.raises(StateDictError, match=r"stage1\.0\.rbr_reparam\.weight: unexpected"):
        load(model, half)
    with pytest.raises(StateDictError, match="another family"):
        load(models.create("mobileone_s0"), state)
    transposed = {**state, "linear.weight": state["linear.weight"].T}
    with pytest.raises(StateDictError, match=r"linear\.weight: has shape"):
        load(model, transposed)
    with pytest.raises(ValueError, match="no naming 'tim'"):
        load(model, state, naming="tim")


@pytest.mark.parametrize("name", ["weights.pth", "weights.bin"])
def test_pickles_are_not_opened(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="weights_only=True"):
        load(network(), tmp_path / name)


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    write(path, {"a": np.ones(100)})
    content = path.read_bytes()
    for end in (4, 20, len(content) - 8):
        path.write_bytes(content[:end])
        with pytest.raises(ValueError, match=r"cut off|not a safetensors file"):
            read(path)
