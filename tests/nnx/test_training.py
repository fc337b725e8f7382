"""Twenty steps of training end in Linen's parameters, and trees go from one form to the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx

import repjax.nnx
import repjax.torch
from repjax import blocks
from tests.blocks.cases import largest, random_variables, same
from tests.nnx.pairs import arrays, fill, laid_over

X = np.random.default_rng(0).normal(size=(4, 8, 8, 4))
Y = np.random.default_rng(1).normal(size=(4, 8, 8, 4))


@pytest.mark.usefixtures("x64")
def test_twenty_steps_end_in_the_same_parameters() -> None:
    linen = blocks.RepVGGBlock(4, param_dtype=float)
    variables = jax.tree.map(jnp.asarray, random_variables(linen, X))
    model = repjax.nnx.RepVGGBlock(4, 4, param_dtype=float, rngs=nnx.Rngs(0))
    fill(model, variables)
    tx = optax.sgd(0.05, momentum=0.9)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def step(model: Any, optimizer: Any) -> Any:
        loss, grads = nnx.value_and_grad(lambda model: ((model(X) - Y) ** 2).mean())(model)
        optimizer.update(model, grads)
        return loss

    def loss(params: Any, stats: Any) -> Any:
        variables = {"params": params, "batch_stats": stats}
        y, updated = linen.apply(variables, X, train=True, mutable=["batch_stats"])
        return ((y - Y) ** 2).mean(), updated["batch_stats"]

    @jax.jit
    def linen_step(params: Any, stats: Any, state: Any) -> Any:
        (value, stats), grads = jax.value_and_grad(loss, has_aux=True)(params, stats)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), stats, state, value

    params, stats = variables["params"], variables["batch_stats"]
    state, losses = tx.init(params), []
    for _ in range(20):
        params, stats, state, wanted = linen_step(params, stats, state)
        losses.append(float(wanted))
        assert abs(step(model, optimizer) - wanted) <= 1e-10
    assert losses[-1] < 0.8 * losses[0]
    assert same(arrays(model), laid_over({"params": params, "batch_stats": stats}), 1e-9)


@pytest.mark.usefixtures("x64")
def test_pure_dicts_go_both_ways() -> None:
    linen = blocks.DiverseBranchBlock(4, param_dtype=float)
    variables = random_variables(linen, X)
    model = repjax.nnx.DiverseBranchBlock(4, 4, param_dtype=float, rngs=nnx.Rngs(0))
    fill(model, variables)
    kinds = {"params": nnx.Param, "batch_stats": nnx.BatchStat}
    back = {name: nnx.to_pure_dict(nnx.state(model, kind)) for name, kind in kinds.items()}
    assert same(back, variables, 0)
    model.eval()
    assert largest(model(X) - linen.apply(back, X)) <= 1e-12 * largest(model(X))
    fused = repjax.fuse_params(nnx.to_pure_dict(nnx.state(model)))
    assert same(fused, repjax.fuse_params(variables)["params"], 1e-12)
    report = repjax.verify(
        linen.apply, variables, lambda model, x: repjax.nnx.deploy(model)(x), model, X
    )
    assert report


def test_checkpoints_go_both_ways(tmp_path: Path) -> None:
    x = X.astype(np.float32)
    linen = blocks.RepVGGBlock(4)
    model = repjax.nnx.RepVGGBlock(4, 4, rngs=nnx.Rngs(1))
    variables = linen.init(jax.random.key(0), x)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "linen", variables)
        checkpointer.save(tmp_path / "nnx", nnx.to_pure_dict(nnx.state(model)))
        checkpointer.wait_until_finished()
        from_linen = checkpointer.restore(tmp_path / "linen", variables)
        from_nnx = checkpointer.restore(tmp_path / "nnx", nnx.to_pure_dict(nnx.state(model)))
    other = repjax.nnx.RepVGGBlock(4, 4, rngs=nnx.Rngs(2))
    fill(other, from_linen)
    other.eval()
    assert largest(other(x) - linen.apply(variables, x)) <= 1e-6
    fused = {"params": repjax.fuse_params(from_nnx)}
    model.eval()
    assert largest(linen.deploy().apply(fused, x) - model(x)) <= 1e-5


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["repvgg_block_8to8_s1", "mobileone_block_dw3_k4_scale_id"])
def test_weights_from_pytorch_by_the_tables_of_the_linen_block(name: str) -> None:
    with np.load(Path(__file__).parents[1] / "reference" / f"{name}.npz") as file:
        state = {key[6:]: file[key] for key in file.files if key.startswith("state/")}
        x, wanted = (np.moveaxis(file[key], 1, -1) for key in ("input", "output"))
    fields: dict[str, Any] = {"param_dtype": float, "padding": 1, "rngs": nnx.Rngs(0)}
    if name.startswith("repvgg"):
        model: Any = repjax.nnx.RepVGGBlock(8, 8, **fields)
    else:
        model = repjax.nnx.MobileOneBlock(8, 8, groups=8, copies=4, **fields)
    fill(model, repjax.torch.load(model.description, state, inputs=x))
    model.eval()
    for form in (model, repjax.nnx.deploy(model)):
        assert largest(form(x.astype(float)) - wanted) <= 1e-10 * largest(wanted)


def test_a_state_comes_back_as_a_state() -> None:
    model = nnx.List(
        [repjax.nnx.RepVGGBlock(4, 4, rngs=nnx.Rngs(0)), nnx.Dropout(0.1, rngs=nnx.Rngs(0))]
    )
    state = nnx.state(model)
    fused = repjax.fuse_params(state)
    assert type(fused) is nnx.State
    graph, wanted = nnx.split(repjax.nnx.deploy(model))
    assert jax.tree.structure(fused) == jax.tree.structure(wanted)
    deployed = nnx.merge(graph, fused)
    assert isinstance(deployed[0].conv.kernel, nnx.Param)
    again = repjax.unfuse_params(fused, state)
    assert jax.tree.structure(again) == jax.tree.structure(state)
    assert type(again[0]["conv"][next(iter(again[0]["conv"]))]["conv3x3"]["norm"]["mean"]) is (
        nnx.BatchStat
    )
    assert type(jax.eval_shape(repjax.fuse_params, state)) is nnx.State
    assert type(repjax.fuse_params(nnx.to_pure_dict(state))) is dict
    bare = jax.tree.map(lambda leaf: leaf, nnx.State(nnx.to_pure_dict(state)))
    assert not isinstance(repjax.fuse_params(bare)[0]["conv"]["kernel"], nnx.Variable)
