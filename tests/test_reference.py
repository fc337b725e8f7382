"""Conformance to the official PyTorch implementations: one test per file of reference data.

The files are those of the folder named by `REPJAX_REFERENCE` (default: the shipped ones).
Each is driven by its `meta` alone: a builder makes the model from class and constructor, and
states how many convolutions and norms its deploy form must have.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

import repjax
from repjax.torch import Loaded, convert, load, to_state_dict
from repjax.torch.fit import template_of
from tests import trajectories
from tests.evaluate import Program, outputs
from tests.reference_builders import case_of

SHIPPED = Path(__file__).parent / "reference"
FOLDER = Path(os.environ.get("REPJAX_REFERENCE", SHIPPED))
FILES = sorted(FOLDER.glob("*.npz"))
TOLERANCE = 1e-9  # of the largest output


@dataclasses.dataclass(frozen=True)
class Reference:
    """One file of reference data, in our layout; `deploy` is empty where the file has none."""

    meta: dict[str, Any]
    state: dict[str, np.ndarray]
    deploy: dict[str, np.ndarray]
    input: np.ndarray
    output: np.ndarray
    deploy_output: np.ndarray | None


def read(path: Path) -> Reference:
    with np.load(path) as file:
        return of_arrays({name: file[name] for name in file.files})


def of_arrays(arrays: dict[str, np.ndarray]) -> Reference:
    meta = json.loads(str(arrays["meta"]))
    state = {k.removeprefix("state/"): v for k, v in arrays.items() if k.startswith("state/")}
    deploy = {k.removeprefix("deploy/"): v for k, v in arrays.items() if k.startswith("deploy/")}
    if deploy:
        deploy |= {key: state[key] for key in meta.get("deploy_keys_equal_to_state", ())}
    deployed = nhwc(arrays["deploy_output"]) if "deploy_output" in arrays else None
    return Reference(meta, state, deploy, nhwc(arrays["input"]), nhwc(arrays["output"]), deployed)


def nhwc(array: np.ndarray) -> np.ndarray:
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def assert_equal(found: Any, wanted: np.ndarray) -> None:
    assert found.dtype == np.float64
    assert found.shape == wanted.shape
    assert np.abs(np.asarray(found) - wanted).max() <= TOLERANCE * np.abs(wanted).max()


def norms(variables: Any) -> int:
    flat = traverse_util.flatten_dict(variables.get("batch_stats", {}))
    return sum(path[-1] == "mean" for path in flat)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_conforms(path: Path, x64: None) -> None:
    reference = read(path)
    if reference.meta.get("kind") == "trajectory":
        trajectories.check(path)
        return
    check(reference)


def check(reference: Reference) -> None:
    """All that a file tells; what it does not hold is left out."""
    meta = reference.meta
    case = case_of(meta)
    x = jnp.asarray(reference.input, jnp.float64)
    model, twin = case.model, case.model.deploy()
    apply = jax.jit(model.apply)  # traced once for what follows
    variables = load(model, reference.state, naming=case.naming, inputs=x)
    assert_equal(outputs(apply, variables, x), reference.output)

    deployed = outputs(repjax.fuse_params, variables)
    # the same as those of `load`, which are traced once
    shapes = traverse_util.unflatten_dict(dict(template_of(model, True, x)))
    assert jax.tree.map(as_shape, deployed) == jax.tree.map(as_shape, shapes)
    native = Program(twin.apply, deployed, x)
    assert_equal(native.outputs(), reference.output)
    assert native.names["conv_general_dilated"] == case.convolutions
    assert norms(deployed) == case.norms

    fused = repjax.fuse(apply, variables, x)
    merged = Program(fused.apply, fused.params, x)
    assert_equal(merged.outputs(), reference.output)
    assert merged.names["conv_general_dilated"] <= case.convolutions
    # layer norms have a square root too, and stay in both
    assert merged.names["rsqrt"] <= native.names["rsqrt"]

    if meta.get("peer_fuse_wrong"):
        return
    if reference.deploy_output is not None:
        assert_equal(native.outputs(), reference.deploy_output)
    if reference.deploy and case.loads_deploy:
        official = convert(model, reference.deploy, naming=case.naming, inputs=x)
        assert jax.tree.map(as_shape, official.variables) == jax.tree.map(as_shape, shapes)
        assert_equal(native.outputs(official.variables, x), reference.output)
        check_way_back(reference, model, official, x)


def check_way_back(reference: Reference, model: Any, official: Loaded, x: Any) -> None:
    """Deploy variables have the official names and shapes as a state dict, and come back."""
    state = to_state_dict(model, official.variables, naming=official.naming, inputs=x)
    official_shapes = {name: array.shape for name, array in reference.deploy.items()}
    assert {name: array.shape for name, array in state.items()} == official_shapes
    again = load(model.deploy(), state, naming=official.naming, inputs=x)
    pairs = zip(jax.tree.leaves(again), jax.tree.leaves(official.variables), strict=True)
    for found, wanted in pairs:
        assert_equal(found, wanted)


def as_shape(leaf: Any) -> tuple[Any, ...]:
    return leaf.shape, str(leaf.dtype)


def test_there_are_files() -> None:
    assert FILES, f"no reference data in {FOLDER}"
