"""`RepConv` in training: batch statistics, the border of chains, types, shapes of data."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

import repjax
from repjax.algebra import Conv
from repjax.blocks import AveragePool, Identity, KxK, Norm, Pointwise, RepConv, Sequence
from tests.algebra import reference
from tests.blocks.cases import cast, largest, random_variables
from tests.evaluate import evaluated


def trained(block: RepConv, variables: Any, x: Any) -> Any:
    """Outputs and updated statistics of one training step's forward pass."""
    run = evaluated(lambda v, x: block.apply(v, x, train=True, mutable=["batch_stats"]))
    return run(variables, x)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("strides", "padding", "ring"),
    [(1, None, 1), (2, None, 1), (1, 2, 2), (1, 0, 0), (1, ((2, 0), (1, 1)), ((2, 0), (1, 1)))],
)
def test_border_of_a_chain_is_what_the_batch_statistics_make_of_zeros(
    strides: int, padding: Any, ring: Any
) -> None:
    chain = Sequence(Norm(Pointwise(bias=True), epsilon=1e-3), KxK(3), features=5)
    block = RepConv(
        3,
        branches=(chain,),
        use_bias=False,
        strides=strides,
        padding=padding,
        momentum=0.75,
        param_dtype=float,
    )
    x = np.random.default_rng(0).normal(size=(2, 7, 6, 4))
    variables = random_variables(block, x)
    [(name, node)] = variables["params"].items()
    [(_, stats)] = variables["batch_stats"].items()
    assert name == "y=norm(conv3x3(norm[epsilon=1e-3](conv1x1[bias])))"
    first, old = node["conv1x1"], stats["conv1x1"]["norm"]

    # By hand: the statistics are those of the image, its border is what zeros become.
    inner = x @ first["kernel"][0, 0] + first["bias"]
    mean, var = inner.mean((0, 1, 2)), inner.var((0, 1, 2))
    factor = first["norm"]["scale"] / np.sqrt(var + 1e-3)
    normed = (inner - mean) * factor + first["norm"]["bias"]
    edge = (first["bias"] - mean) * factor + first["norm"]["bias"]
    pairs = [(ring, ring)] * 2 if isinstance(ring, int) else list(ring)
    framed = np.stack(
        [
            np.pad(normed[..., channel], [(0, 0), *pairs], constant_values=edge[channel])
            for channel in range(5)
        ],
        axis=-1,
    )
    second = Conv(node["conv3x3"]["kernel"], strides=strides)
    outer = reference.apply(second, framed)
    last = node["norm"]
    wanted = (outer - outer.mean((0, 1, 2))) * last["scale"] / np.sqrt(
        outer.var((0, 1, 2)) + 1e-5
    ) + last["bias"]

    found, updated = trained(block, variables, x)
    new = updated["batch_stats"][name]["conv1x1"]["norm"]
    assert found.shape == wanted.shape
    assert largest(found - wanted) <= 1e-12 * largest(wanted)
    assert largest(new["mean"] - (0.75 * old["mean"] + 0.25 * mean)) < 1e-12
    assert largest(new["var"] - (0.75 * old["var"] + 0.25 * var)) < 1e-12


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("second", [KxK(3), AveragePool(3)], ids=str)
def test_inference_after_training_is_the_deployed_convolution(second: Any) -> None:
    """With the batch's statistics as running ones, training and deployed forms agree."""
    chain = Sequence(Norm(Pointwise(), scale=False), second)
    block = RepConv(4, branches=(KxK(3), chain), momentum=0.0, use_bias=True, param_dtype=float)
    x = np.random.default_rng(0).normal(size=(2, 7, 6, 4))
    variables = random_variables(block, x)
    y, updated = trained(block, variables, x)
    fused = evaluated(repjax.fuse_params)({**variables, **updated})
    deployed = evaluated(block.deploy().apply)(fused, x)
    assert largest(deployed - y) <= 1e-12 * largest(y)


BLOCK = RepConv(
    4, branches=(KxK(3), Sequence(Norm(Pointwise()), KxK(3)), Identity()), axis_name="devices"
)


@pytest.mark.parametrize("how", ["vmap", "shard_map"])
def test_axis_name_averages_statistics_over_the_whole_batch(how: str) -> None:
    x = np.random.default_rng(0).normal(size=(4, 2, 5, 6, 4)).astype(np.float32)
    variables = cast(random_variables(BLOCK, x[0]), np.float32)
    whole = BLOCK.clone(axis_name=None)
    wanted, wanted_stats = trained(whole, variables, x.reshape(8, 5, 6, 4))

    def step(variables: Any, x: Any) -> Any:
        return BLOCK.apply(variables, x, train=True, mutable=["batch_stats"])

    if how == "vmap":
        run = jax.vmap(step, in_axes=(None, 0), axis_name="devices")
        found, stats = evaluated(run)(variables, x)
        assert jax.tree.all(jax.tree.map(lambda leaf: bool((leaf == leaf[0]).all()), stats))
        stats = jax.tree.map(lambda leaf: leaf[0], stats)
        found = found.reshape(wanted.shape)
    else:
        mesh = jax.make_mesh((4,), ("devices",), axis_types=(jax.sharding.AxisType.Auto,))
        data, all_alike = PartitionSpec("devices"), PartitionSpec()
        run = jax.shard_map(
            step, mesh=mesh, in_specs=(all_alike, data), out_specs=(data, all_alike)
        )
        found, stats = jax.jit(run)(variables, x.reshape(8, 5, 6, 4))
    assert largest(found - wanted) <= 1e-4 * largest(wanted)
    assert jax.tree.all(
        jax.tree.map(lambda a, b: largest(a - b) <= 1e-4 * largest(b), stats, wanted_stats)
    )
    each = jax.vmap(lambda x: whole.apply(variables, x, train=True, mutable=["batch_stats"])[0])
    apart = evaluated(each)(x).reshape(wanted.shape)
    assert largest(apart - wanted) > 1e-2 * largest(wanted)


@pytest.mark.parametrize("norm", ["branch", "sum", None])
@pytest.mark.parametrize("param_dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("dtype", [None, jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("data", [jnp.float32, jnp.bfloat16])
def test_native_and_deployed_compute_in_the_same_type(
    norm: Any, param_dtype: Any, dtype: Any, data: Any
) -> None:
    branches = (KxK(3), Sequence(Pointwise(), AveragePool(3)), Identity())
    block = RepConv(4, branches=branches, norm=norm, dtype=dtype, param_dtype=param_dtype)
    x = jax.ShapeDtypeStruct((1, 5, 6, 4), data)
    variables = jax.eval_shape(block.init, jax.random.key(0), x)
    fused = jax.eval_shape(repjax.fuse_params, variables)
    wanted = dtype or jnp.promote_types(param_dtype, data)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables["params"])} == {jnp.dtype(param_dtype)}
    assert {leaf.dtype for leaf in jax.tree.leaves(variables.get("batch_stats", {}))} <= {
        jnp.dtype(jnp.float32)
    }
    assert jax.eval_shape(block.apply, variables, x).dtype == wanted
    assert jax.eval_shape(block.deploy().apply, fused, x).dtype == wanted
    y, _ = jax.eval_shape(
        lambda v, x: block.apply(v, x, train=True, mutable=["batch_stats"]), variables, x
    )
    assert y.dtype == wanted


def test_any_number_of_batch_axes() -> None:
    block = RepConv(4, branches=(KxK(3), AveragePool(3), Sequence(Norm(Pointwise()), KxK(3))))
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 6, 4)).astype(np.float32)
    variables = cast(random_variables(block, x[0]), np.float32)
    flat, flat_stats = trained(block, variables, x.reshape(6, 5, 6, 4))
    deep, deep_stats = trained(block, variables, x)
    one, _ = trained(block, variables, x[0, 0])
    assert largest(deep.reshape(flat.shape) - flat) <= 1e-4 * largest(flat)
    assert jax.tree.all(
        jax.tree.map(lambda a, b: largest(a - b) <= 1e-5 * largest(b), deep_stats, flat_stats)
    )
    assert one.shape == (5, 6, 4)
    inference = evaluated(block.apply)(variables, x[0])
    alone = evaluated(block.apply)(variables, x[0, 1])
    assert largest(alone - inference[1]) <= 1e-5 * largest(inference)
    deployed = evaluated(block.deploy().apply)(evaluated(repjax.fuse_params)(variables), x[0, 1])
    assert largest(deployed - alone) <= 1e-4 * largest(alone)


def test_initialization_leaves_statistics_alone() -> None:
    x = 3 + np.random.default_rng(0).normal(size=(2, 5, 6, 4))
    init = evaluated(lambda x: RepConv(4, norm="sum").init(jax.random.key(0), x, train=True))
    variables = init(x)
    [stats] = variables["batch_stats"].values()
    assert largest(stats["norm"]["mean"]) == 0
    assert largest(stats["norm"]["var"] - 1) == 0


@pytest.mark.usefixtures("x64")
def test_gradients_of_training_are_those_of_finite_differences() -> None:
    chain = Sequence(Norm(Pointwise()), AveragePool(3))
    block = RepConv(4, branches=(KxK(3), chain, AveragePool(2), Identity()))
    x = np.random.default_rng(0).normal(size=(2, 5, 6, 4))
    variables = random_variables(block, x)

    @evaluated
    @jax.value_and_grad
    def loss(params: Any) -> Any:
        tree = {**variables, "params": params}
        y, _ = block.apply(tree, x, train=True, mutable=["batch_stats"])
        return jnp.sin(y).sum()

    params, direction = variables["params"], random_variables(block, x, seed=7)["params"]
    _, gradient = loss(params)
    slope = jax.tree.reduce(
        lambda total, part: total + part,
        jax.tree.map(lambda a, b: float((a * b).sum()), gradient, direction),
    )
    ahead, behind = (
        loss(jax.tree.map(lambda p, d: p + step * d, params, direction))[0]  # noqa: B023
        for step in (1e-6, -1e-6)
    )
    assert abs((ahead - behind) / 2e-6 - slope) < 1e-5 * abs(slope)
