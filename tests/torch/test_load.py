"""The loader: what it accepts, converts and refuses, on small RepVGG networks."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import repjax
from repjax import models
from repjax.torch import StateDictError, load
from tests.torch import states
from tests.torch.states import variables_of

SIZES: dict[str, Any] = {"depths": (1, 2, 1, 1), "widths": (4, 4, 6, 8), "squeeze_excite": 0.5}


def network(**fields: Any) -> models.Network:
    return models.create("repvgg_a0", num_classes=5, **SIZES, **fields)


def state_of(model: models.Network, variables: Any, naming: str = "original") -> dict[str, Any]:
    """The state dict that PyTorch would have, with its counters and 1x1 convolutions."""
    state: dict[str, Any] = dict(states.state_of(model, variables, naming))
    for key in [key for key in state if key.endswith("running_mean")]:
        state[key.replace("running_mean", "num_batches_tracked")] = np.asarray(7)
    for key in [key for key in state if ".se." in key or ".attn." in key]:
        if key.endswith("weight"):
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
    wanted = {
        "stage1.0.rbr_1x1.bn.bias: missing",
        "extra.weight: unexpected",
        "stage2.0.rbr_dense.conv.weight: has shape (4, 4, 5, 5), expected (4, 4, 3, 3)",
        "stage2.1.rbr_dense.bn.running_var: 4 of 4 numbers are not finite",
        "linear.bias: has dtype int64, expected floating point",
    }
    assert set(caught.value.problems) == wanted
    assert all(f"\n  {problem}" in message for problem in wanted)


def test_half_converted_and_transposed_files_are_refused() -> None:
    model = network()
    variables = variables_of(model)
    state = state_of(model, variables)
    deployed = state_of(model, repjax.fuse_params(variables))
    half = {k: v for k, v in state.items() if not k.startswith("stage1")}
    half |= {k: v for k, v in deployed.items() if k.startswith("stage1")}
    with pytest.raises(StateDictError, match=r"stage1\.0\.rbr_reparam\.weight: unexpected"):
        load(model, half)
    transposed = {**state, "linear.weight": state["linear.weight"].T}
    with pytest.raises(StateDictError, match=r"linear\.weight: has shape"):
        load(model, transposed)
    with pytest.raises(ValueError, match="no naming 'tim'"):
        load(model, state, naming="tim")
