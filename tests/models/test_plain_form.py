"""The plain form of networks: ordinary Flax modules, which branches are added to."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

import repjax
from repjax import models
from repjax.branches import Identity, Pointwise
from repjax.models.repvgg import CONFIGS, RepVGG
from tests.evaluate import evaluated
from tests.models.values import random_variables

SIZES: dict[str, Any] = {
    "num_classes": 5,
    "depths": (2, 1),
    "widths": (4, 8),
    "strides": (1, 2),
    "stem_strides": 1,
}
NETWORKS: dict[str, dict[str, Any]] = {
    "repvgg_a0": SIZES | {"groups": ((2, 2),)},
    "mobileone_s0": SIZES | {"squeeze_excite_blocks": (0, 1)},
}


def of(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {"/".join(entry.key for entry in path): leaf.shape for path, leaf in leaves}


@pytest.mark.parametrize("name", NETWORKS)
def test_it_has_the_kernels_of_the_deploy_twin_and_no_nodes(name: str) -> None:
    x = jnp.ones((1, 9, 8, 3))
    key = jax.random.key(0)
    plain = jax.eval_shape(models.create(name, form="plain", **NETWORKS[name]).init, key, x)
    deployed = models.create(name, deployed=True, **NETWORKS[name])
    found, wanted = of(plain["params"]), of(jax.eval_shape(deployed.init, key, x)["params"])
    assert not any("y=" in path for path in found)
    kernels = {path for path in wanted if path.endswith("kernel")}
    assert {path: found[path] for path in kernels} == {path: wanted[path] for path in kernels}
    norms = {path for path in found if "/norm/" in path}
    assert set(found) - norms == {path for path in wanted if not path.endswith("conv/bias")}
    multi = jax.eval_shape(models.create(name, **NETWORKS[name]).init, key, x)
    assert any("y=" in path for path in of(multi["params"]))


@pytest.mark.parametrize("name", NETWORKS)
def test_with_branches_it_computes_the_same_and_fuses(name: str, x64: None) -> None:
    model = models.create(name, form="plain", param_dtype=jnp.float64, **NETWORKS[name])
    x = jax.random.normal(jax.random.key(0), (2, 9, 8, 3))
    variables = random_variables(jax.eval_shape(model.init, jax.random.key(1), x))
    expected = evaluated(model.apply)(variables, x)
    wide = repjax.add_branches(variables, (Pointwise(), Identity(optional=True)), jax.random.key(2))
    assert any("y=" in path for path in of(wide["params"]))
    found = evaluated(lambda tree, x: model.apply(repjax.fuse_params(tree), x))(wide, x)
    assert float(jnp.abs(found - expected).max()) < 1e-12 * float(jnp.abs(expected).max())
    fused = repjax.fuse(model.apply, variables, x)
    error = jnp.abs(evaluated(fused.apply)(fused.params, x) - expected).max()
    assert float(error) < 1e-12 * float(jnp.abs(expected).max())
    deployed = {"params": fused.params}
    assert of(deployed) == of(jax.eval_shape(model.deploy().init, jax.random.key(0), x))
    error = jnp.abs(evaluated(model.deploy().apply)(deployed, x) - expected).max()
    assert float(error) < 1e-12 * float(jnp.abs(expected).max())
    with pytest.raises(ValueError, match=r"kernel without a bias.*repjax\.fuse"):
        model.deploy().apply(repjax.fuse_params(variables), x)


def test_its_norm_trains_on_the_batch() -> None:
    model = models.create("repvgg_a0", form="plain", **SIZES)
    x = jax.random.normal(jax.random.key(0), (2, 6, 6, 3))
    variables = model.init(jax.random.key(1), x)
    _, updates = model.apply(variables, x, train=True, mutable=["batch_stats"])
    before = variables["batch_stats"]["stem"]["norm"]["mean"]
    assert float(jnp.abs(updates["batch_stats"]["stem"]["norm"]["mean"] - before).max()) > 0


def test_what_has_no_plain_form_is_refused() -> None:
    with pytest.raises(
        ValueError, match="fastvit_t8 has no plain form; MobileOne and RepVGG have one"
    ):
        models.create("fastvit_t8", form="plain")
    with pytest.raises(ValueError, match="form is 'multi' or 'plain'; found 'single'"):
        models.create("repvgg_a0", form="single")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="form is 'multi' or 'plain'; found 'single'"):
        RepVGG(config=CONFIGS["repvgg_a0"], form="single").init(  # type: ignore[arg-type]
            jax.random.key(0), jnp.ones((32, 32, 3))
        )


def test_strides_of_the_stages() -> None:
    model = models.create("repvgg_a0", **SIZES)
    x = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    outputs = jax.eval_shape(lambda v, x: model.apply(v, x, method="features"), variables, x)
    assert [output.shape[1] for output in outputs] == [8, 8, 4]
    with pytest.raises(ValueError, match="one entry per stage"):
        models.create("repvgg_a0", strides=(1, 2))
