"""The blocks of UniRepLKNet: what is fused, what stays, gradients where a channel is dead."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import repjax
from repjax.blocks.grn import GlobalResponseNorm
from repjax.blocks.unireplknet import (
    DILATED_BRANCHES,
    DilatedReparamBlock,
    UniRepLKNetBlock,
)
from tests.blocks.cases import (
    cast,
    identical,
    largest,
    random_variables,
    same,
)
from tests.evaluate import evaluated


def assert_fuses(block: UniRepLKNetBlock | DilatedReparamBlock, x: np.ndarray) -> None:
    variables = random_variables(block, x)
    deployed = evaluated(repjax.fuse_params)(variables)
    twin = jax.eval_shape(block.deploy().init, jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, deployed) == jax.tree.map(jnp.shape, twin)
    assert "batch_stats" not in deployed
    native = evaluated(block.apply)(variables, x)
    fused = evaluated(block.deploy().apply)(deployed, x)
    assert native.shape == x.shape[:-1] + native.shape[-1:]
    assert largest(native - fused) <= 1e-12 * largest(native)


def data(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape)


@pytest.mark.parametrize("size", DILATED_BRANCHES)
def test_dilated_branches_fit_inside_the_large_kernel(size: int) -> None:
    for taps, dilation in DILATED_BRANCHES[size]:
        assert (taps - 1) * dilation + 1 <= size
    x = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    twin = jax.eval_shape(DilatedReparamBlock(size).deploy().init, jax.random.key(0), x)
    assert twin["params"]["conv"]["kernel"].shape == (size, size, 1, 3)


def test_dilated_block_fuses(x64: None) -> None:
    assert_fuses(DilatedReparamBlock(7, epsilon=1e-3), data(2, 5, 9, 4))


@pytest.mark.parametrize(("size", "layer_scale"), [(0, 1e-6), (3, None), (7, 1e-6), (5, 0.0)])
def test_block_fuses(x64: None, size: int, layer_scale: float | None) -> None:
    block = UniRepLKNetBlock(size, ffn_ratio=2, layer_scale=layer_scale, epsilon=1e-4)
    assert_fuses(block, data(2, 6, 5, 8))


def test_layer_scale_begins_at_its_value() -> None:
    x = jnp.ones((1, 4, 4, 4))
    params = evaluated(UniRepLKNetBlock(3, layer_scale=0.25).init)(jax.random.key(0), x)["params"]
    (node,) = params["pointwise2"].values()
    np.testing.assert_array_equal(node["scale"], np.full(4, 0.25))
    np.testing.assert_array_equal(node["identity"]["bias"], np.zeros(16))


def test_unknown_kernel_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[5, 7, 9, 11, 13, 15, 17\].*found 19"):
        jax.eval_shape(UniRepLKNetBlock(19).init, jax.random.key(0), jnp.ones((1, 4, 4, 4)))


def test_training_takes_the_statistics_of_the_batch(x64: None) -> None:
    block = UniRepLKNetBlock(7, drop_path=0.5)
    x = data(16, 5, 5, 4)
    variables = random_variables(block, x)
    run = evaluated(lambda v, key: block.apply(v, x, True, rngs={"dropout": key}, mutable=True))
    (one, changed), (two, _) = (run(variables, jax.random.key(seed)) for seed in (0, 1))
    pairs = zip(*(jax.tree.leaves(t["batch_stats"]) for t in (variables, changed)), strict=True)
    assert all(bool((old != new).all()) for old, new in pairs)
    dropped = [[bool((a == b).all()) for a, b in zip(y, x, strict=True)] for y in (one, two)]
    assert 0 < sum(dropped[0]) < 16
    assert dropped[0] != dropped[1]


def test_response_norm_is_that_of_the_paper(x64: None) -> None:
    x = data(2, 3, 5, 4)
    scale, bias = data(4), data(4) + 1
    norms = np.sqrt((x**2).sum(axis=(1, 2), keepdims=True))
    relative = norms / (norms.mean(axis=-1, keepdims=True) + 1e-6)
    y = evaluated(GlobalResponseNorm().apply)({"params": {"scale": scale, "bias": bias}}, x)
    np.testing.assert_allclose(y, (scale * relative + 1) * x + bias, rtol=1e-12)


def test_response_norm_of_dead_channels_has_gradients() -> None:
    layer = GlobalResponseNorm()
    params = {"params": {"scale": jnp.ones(3), "bias": jnp.ones(3)}}
    x = jnp.zeros((1, 2, 2, 3)).at[..., 0].set(1.0)
    gradient = jax.grad(lambda x: layer.apply(params, x).sum())(x)
    assert bool(jnp.isfinite(gradient).all())
    assert not bool((gradient[..., 1:] == 0).all()), "the identity part passes"


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_response_norm_in_other_dimensions(dims: int) -> None:
    x = jnp.asarray(data(2, *(3,) * dims, 4), jnp.bfloat16)
    layer = GlobalResponseNorm(dims=dims, param_dtype=jnp.bfloat16)
    params = {"params": {"scale": jnp.ones(4, jnp.bfloat16), "bias": jnp.zeros(4, jnp.bfloat16)}}
    y = evaluated(layer.apply)(params, x)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y[0], evaluated(layer.apply)(params, x[0]))


def test_trees_of_before_there_was_a_shift_branch_are_read() -> None:
    block = UniRepLKNetBlock(3, ffn_ratio=1)
    variables = cast(random_variables(block, np.ones((1, 4, 4, 4))), np.float32)
    (name,) = variables["params"]["pointwise2"]
    old_name = name.replace("conv1x1(shift(identity))", "conv1x1")
    node, stats = (variables[part]["pointwise2"][name] for part in ("params", "batch_stats"))
    conv = {"kernel": node["conv1x1"]["kernel"], "norm": node["norm"], "scale": node["scale"]}
    shifted = {"bias": node["identity"]["bias"], "conv": {old_name: conv}}
    old = {
        "params": {**variables["params"], "pointwise2": {"shift_then_conv": shifted}},
        "batch_stats": {
            **variables["batch_stats"],
            "pointwise2": {"shift_then_conv": {"conv": {old_name: stats}}},
        },
    }
    deployed = repjax.fuse_params(variables)
    assert same(repjax.fuse_params(old), deployed, 0)
    renamed = repjax.rename_params(old)
    assert jax.tree.structure(renamed) == jax.tree.structure(variables)
    assert identical(renamed, variables)
    back = repjax.unfuse_params(deployed, old)
    assert jax.tree.structure(back) == jax.tree.structure(variables)
