"""Deploy variables as a state dict: exact on the way back, and refused where it cannot be.

Names and shapes are compared with the official ones in tests/test_reference.py.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import repjax
from repjax import models
from repjax.torch import load, to_state_dict
from tests.torch.states import variables_of

FASTVIT: dict[str, Any] = {"depths": (1, 1, 1, 1), "widths": (8, 8, 8, 32)}
QKV = "stage4_block0/query_key_value/bias"


@pytest.fixture(scope="module")
def fastvit() -> models.Network:
    """Norms kept behind and in front of a map, and layer scales: all that can be kept."""
    return models.create("fastvit_sa12", num_classes=5, **FASTVIT)


@pytest.fixture(scope="module")
def deployed(fastvit: models.Network) -> dict[str, Any]:
    return repjax.fuse_params(variables_of(fastvit))


def leaves(variables: Any) -> dict[str, Any]:
    found = jax.tree_util.tree_leaves_with_path(variables)
    return {"/".join(key.key for key in path[1:]): leaf for path, leaf in found}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_way_back_is_exact(fastvit: models.Network, deployed: Any, dtype: str) -> None:
    """All but a bias that the official form has as a shift in front of its map."""
    given = jax.tree.map(lambda leaf: leaf.astype(dtype), deployed)
    state = to_state_dict(fastvit, given)
    assert {str(array.dtype) for array in state.values()} == {dtype, "int64"}
    model: Any = fastvit.clone(param_dtype=jnp.dtype(dtype)).deploy()
    found, wanted = leaves(load(model, state, naming="timm")), leaves(given)
    assert found.keys() == wanted.keys()
    for name in found:
        assert found[name].dtype == wanted[name].dtype
        if name != QKV:
            np.testing.assert_array_equal(found[name], wanted[name])
    off = jnp.abs(found[QKV].astype(jnp.float32) - wanted[QKV].astype(jnp.float32))
    assert float(off.max()) < 20 * float(jnp.finfo(dtype).eps)


def test_a_bias_without_a_place_is_refused(fastvit: models.Network, deployed: Any) -> None:
    trained = jax.tree.map(lambda leaf: leaf, deployed)
    module = trained["params"]["stage4_block0"]["query_key_value"]
    module["bias"] = module["bias"] + jnp.arange(float(module["bias"].size))
    with pytest.raises(ValueError, match=r"qkv\.bias: has no place there.*trained in deploy"):
        to_state_dict(fastvit, trained)


def test_variables_of_another_form_or_size_are_refused(
    fastvit: models.Network, deployed: Any
) -> None:
    with pytest.raises(ValueError, match=r"train form of FastViT; give repjax\.fuse_params"):
        to_state_dict(fastvit, variables_of(fastvit))
    with pytest.raises(ValueError, match=r"head/bias: has shape \(5,\), expected \(7,\)"):
        to_state_dict(fastvit.clone(num_classes=7), deployed)
    del (less := jax.tree.map(lambda leaf: leaf, deployed))["params"]["head"]
    with pytest.raises(ValueError, match="params/head/kernel: missing"):
        to_state_dict(fastvit, less)


def test_a_naming_that_does_not_exist_is_refused() -> None:
    model = models.create("replknet_31b", deployed=True)
    with pytest.raises(ValueError, match=r"no naming 'timm' of RepLKNet; found \['original'\]"):
        to_state_dict(model, {})
