"""The blocks of RepLKNet: sizes of kernels, strides and groups, the norms in front."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import repjax
from repjax.blocks.replknet import ReparamLargeKernelConv, RepLKBlock, RepLKFeedForward
from tests.blocks.cases import largest, random_variables
from tests.evaluate import evaluated

BLOCKS: dict[str, Any] = {
    "strides, groups": ReparamLargeKernelConv(4, 7, 3, strides=2, groups=2),
    "no small kernel": ReparamLargeKernelConv(6, 9, None, epsilon=1e-3),
    "equal sizes": ReparamLargeKernelConv(6, 5, 5),
    "even sizes": ReparamLargeKernelConv(6, 8, 4),
    "odd beside even": ReparamLargeKernelConv(6, 8, 5, strides=2),
    "block": RepLKBlock(9, 7, 3),
    "feed-forward": RepLKFeedForward(1.5),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_fuses_without_a_norm_left(x64: None, name: str) -> None:
    block = BLOCKS[name]
    x = np.random.default_rng(0).normal(size=(2, 11, 9, 6))
    variables = random_variables(block, x)
    deployed = evaluated(repjax.fuse_params)(variables)
    twin = jax.eval_shape(block.deploy().init, jax.random.key(0), x)
    assert list(deployed) == ["params"]
    assert jax.tree.map(jnp.shape, deployed) == jax.tree.map(jnp.shape, twin)
    native = evaluated(block.apply)(variables, x)
    fused = evaluated(block.deploy().apply)(deployed, x)
    assert largest(native - fused) <= 1e-12 * largest(native)


def test_kernels_meet_at_half_their_size(x64: None) -> None:
    """As two convolutions, each padded by half its size, would."""
    large, small = (np.random.default_rng(k).normal(size=(k, k, 1, 2)) for k in (8, 5))
    x = np.random.default_rng(0).normal(size=(1, 15, 15, 2))
    block = ReparamLargeKernelConv(2, 8, 5, strides=2, epsilon=0.0)
    one = {"mean": np.zeros(2), "var": np.ones(2)}
    affine = {"scale": np.ones(2), "bias": np.zeros(2)}
    node = {f"conv{k.shape[0]}x{k.shape[0]}": {"kernel": k, "norm": affine} for k in (large, small)}
    stats = {name: {"norm": one} for name in node}
    (name,) = random_variables(block, x)["params"]["conv"]
    variables = {
        "params": {"conv": {name: node}},
        "batch_stats": {"conv": {name: stats}},
    }
    wanted = sum(
        jax.lax.conv_general_dilated(
            x,
            kernel,
            (2, 2),
            [(kernel.shape[0] // 2,) * 2] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=2,
        )
        for kernel in (large, small)
    )
    np.testing.assert_allclose(evaluated(block.apply)(variables, x), wanted, rtol=0, atol=1e-12)


def test_the_smaller_kernel_must_be_the_second() -> None:
    with pytest.raises(ValueError, match="exchange them"):
        ReparamLargeKernelConv(4, 5, 7).init(jax.random.key(0), jnp.ones((1, 8, 8, 4)))


def test_training_takes_the_statistics_of_the_batch(x64: None) -> None:
    block = RepLKBlock(kernel_size=5, small_kernel_size=3)
    x = np.random.default_rng(0).normal(size=(2, 5, 5, 4))
    variables = random_variables(block, x)
    _, changed = evaluated(lambda v: block.apply(v, x, True, mutable=True))(variables)
    pairs = zip(*(jax.tree.leaves(t["batch_stats"]) for t in (variables, changed)), strict=True)
    assert all(bool((old != new).all()) for old, new in pairs)
