"""Diverse branch, asymmetric, OREPA and edge-oriented blocks: what no reference file shows."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import repjax
from repjax.blocks.acnet import ACBlock
from repjax.blocks.dbb import DiverseBranchBlock
from repjax.blocks.ecb import ECB, PReLU
from repjax.blocks.orepa import (
    OREPABlock,
    OREPALargeBlock,
    OREPAPointwiseBlock,
    OREPARepVGGBlock,
)
from tests.blocks.cases import convolutions, described, largest, random_variables
from tests.evaluate import evaluated

# block, input channels, parameters of the official train and deploy form
COUNTS: list[tuple[Any, int, int, int]] = [
    (ACBlock(8), 8, 1008, 584),
    (DiverseBranchBlock(8), 8, 1440, 584),
    (DiverseBranchBlock(12, groups=2), 8, 1128, 444),
    (DiverseBranchBlock(8, groups=8), 8, 312, 80),
    (DiverseBranchBlock(8, internal=16), 8, 2096, 584),
    (OREPABlock(8), 8, 2560, 584),
    (OREPAPointwiseBlock(12), 8, 304, 108),
    (OREPALargeBlock(6, kernel_size=7), 3, 3891, 888),
    # the official count is 8 more: a row of scales that nothing reads
    (OREPARepVGGBlock(8), 8, 2592 - 8, 584),
    (ECB(8, identity=True), 8, 2160, 592),
]


@pytest.mark.parametrize(("block", "inputs", "train", "deploy"), COUNTS)
def test_counts_parameters_as_the_papers_do(
    block: Any, inputs: int, train: int, deploy: int
) -> None:
    x = jax.ShapeDtypeStruct((1, 9, 9, inputs), jnp.float32)
    shapes = jax.eval_shape(block.init, jax.random.key(0), x)
    deployed = jax.eval_shape(repjax.fuse_params, shapes)
    assert parameters(shapes) == train
    assert parameters(deployed) == deploy
    assert described(deployed) == described(
        jax.eval_shape(block.deploy().init, jax.random.key(0), x)
    )
    assert convolutions(block.deploy().apply, deployed, x) == 1


def parameters(variables: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


GEOMETRIES: list[tuple[Any, int]] = [
    (ACBlock(6, dilation=2), 4),
    (ACBlock(4, kernel_size=5, padding=0, strides=2, groups=2), 4),
    (DiverseBranchBlock(4, dilation=2, activation=jax.nn.gelu), 4),
    (DiverseBranchBlock(6, kernel_size=5, padding=0, strides=2, groups=2, internal=8), 4),
    (DiverseBranchBlock(4, kernel_size=4, groups=4), 4),
    (OREPABlock(6, kernel_size=5, dilation=2, groups=2), 4),
    (OREPABlock(4, kernel_size=4, strides=2), 4),
    (OREPAPointwiseBlock(6, groups=2, strides=2), 4),
    (OREPALargeBlock(4, kernel_size=9, strides=2, groups=2), 4),
    (OREPALargeBlock(4, kernel_size=5, dilation=2, branched=False), 3),
    (OREPARepVGGBlock(4, groups=2, dilation=2), 4),
    (OREPARepVGGBlock(4, kernel_size=5, squeeze_excite=2), 4),
    (ECB(6, identity=True, activation=None), 4),
]


@pytest.mark.parametrize(("block", "inputs"), GEOMETRIES)
def test_fuses_beyond_the_official_code(block: Any, inputs: int, x64: None) -> None:
    x = np.random.default_rng(0).normal(size=(1, 15, 12, inputs))
    variables = random_variables(block, x)
    deployed = evaluated(repjax.fuse_params)(variables)
    y, z = evaluated(block.apply)(variables, x), evaluated(block.deploy().apply)(deployed, x)
    assert y.shape == z.shape
    assert largest(y - z) <= 1e-12 * largest(y)
    assert "fixed" not in deployed
    assert "batch_stats" not in deployed


@pytest.mark.parametrize(
    ("block", "number"), [(OREPABlock(4), 1), (OREPALargeBlock(4), 1), (OREPARepVGGBlock(4), 2)]
)
def test_orepa_convolves_once_per_norm_in_training(block: Any, number: int) -> None:
    x = jax.ShapeDtypeStruct((1, 9, 9, 4), jnp.float32)
    variables = jax.eval_shape(block.init, jax.random.key(0), x)

    def train(variables: Any, x: Any) -> Any:
        return block.apply(variables, x, train=True, mutable=["batch_stats"])

    assert convolutions(train, variables, x) == number


def node_of(block: Any, inputs: int = 4) -> Any:
    """The parameters of a freshly initialized block, below its equation."""
    variables = evaluated(block.init)(jax.random.key(0), jnp.ones((1, 6, 6, inputs)))
    (node,) = variables["params"]["conv"].values()
    return node


def test_orepa_starts_with_the_published_scales() -> None:
    def scales(node: Any) -> dict[str, float]:
        return {name: float(leaf["scale"][0]) for name, leaf in node.items() if "scale" in leaf}

    five = {
        "conv3x3": 0.25,
        "conv1x1_mean3x3": 0.25,
        "conv1x1_cosine3x3": 0.0,
        "sum_conv3x3": 0.5,
        "depthwise3x3_conv1x1": 0.5,
    }
    node = node_of(OREPABlock(4))
    node["norm"].pop("scale")
    assert scales(node) == five | {"conv1x1": 1.0}
    merged = node_of(OREPARepVGGBlock(4))["sum"]
    merged["norm"].pop("scale")
    assert scales(merged) == five
    assert largest(node["sum_conv3x3"]["sum"]["conv1x1"]["kernel"]) == 0
    pointwise = node_of(OREPAPointwiseBlock(6))
    assert float(pointwise["conv1x1"]["scale"][0]) == 1.0
    assert float(pointwise["conv1x1_conv1x1"]["scale"][0]) == 0.5
    np.testing.assert_array_equal(
        pointwise["conv1x1_conv1x1"]["conv1x1_0"]["kernel"][0, 0], np.eye(4)
    )
    narrow = node_of(OREPAPointwiseBlock(3))["conv1x1_conv1x1"]
    np.testing.assert_array_equal(narrow["conv1x1_1"]["kernel"][0, 0], np.eye(3))


def test_orepa_kernels_start_in_the_published_range() -> None:
    kernel = node_of(OREPABlock(64), 32)["conv3x3"]["kernel"]
    assert np.abs(kernel).max() == pytest.approx((6 / (32 * 9)) ** 0.5, rel=1e-3)
    kernel = node_of(OREPARepVGGBlock(64), 32)["sum"]["conv3x3"]["kernel"]
    assert np.abs(kernel).max() == pytest.approx((3 / (32 * 9)) ** 0.5, rel=1e-3)


@pytest.mark.parametrize("kernel_size", [3, 6])
def test_large_chains_have_odd_sizes(kernel_size: int) -> None:
    with pytest.raises(ValueError, match=f"at least 5; found {kernel_size}"):
        OREPALargeBlock(4, kernel_size=kernel_size).init(jax.random.key(0), jnp.ones((1, 9, 9, 3)))


def test_a_single_start_is_the_kxk_branch_alone(x64: None) -> None:
    x = np.random.default_rng(0).normal(size=(1, 7, 8, 4))
    block = DiverseBranchBlock(4, single_init=True, param_dtype="float64")
    variables = evaluated(block.init)(jax.random.key(0), x)
    (node,) = variables["params"]["conv"].values()
    fused = repjax.fuse_params(variables)["params"]["conv"]["kernel"]
    assert largest(fused - node["conv3x3"]["kernel"] / np.sqrt(1 + 1e-5)) <= 1e-12


def test_a_chain_that_keeps_channels_starts_as_its_second_kernel(x64: None) -> None:
    block = DiverseBranchBlock(4, groups=2, param_dtype="float64")
    node = node_of(block)
    assert largest(node["sum_conv3x3"]["sum"]["conv1x1"]["kernel"]) == 0
    assert "conv1x1_0" not in node["sum_conv3x3"]


def test_asymmetric_ones_add_up_to_a_skeleton(x64: None) -> None:
    x = jnp.ones((1, 5, 5, 1))
    block = ACBlock(1, epsilon=0.0, param_dtype="float64")
    variables = evaluated(block.init)(jax.random.key(0), x)
    ones = jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.ones_like(leaf) if path[-1].key == "kernel" else leaf, variables
    )
    kernel = repjax.fuse_params(ones)["params"]["conv"]["kernel"][:, :, 0, 0]
    np.testing.assert_allclose(kernel, [[1, 2, 1], [2, 3, 2], [1, 2, 1]])


def test_asymmetric_norms_without_affine_fuse(x64: None) -> None:
    x = np.random.default_rng(0).normal(size=(1, 7, 8, 4))
    block = ACBlock(4, affine=False)
    variables = random_variables(block, x)
    assert parameters(variables) == 4 * 4 * (9 + 3 + 3)
    y = evaluated(block.apply)(variables, x)
    z = evaluated(block.deploy().apply)(evaluated(repjax.fuse_params)(variables), x)
    assert largest(y - z) <= 1e-12 * largest(y)


def test_edge_branches_see_the_bias_of_their_pointwise_convolution_at_the_border() -> None:
    block = ECB(2, activation=None)
    variables = evaluated(block.init)(jax.random.key(0), jnp.ones((1, 5, 5, 2)))
    (name,) = variables["params"]["conv"]
    node = jax.tree.map(jnp.zeros_like, variables["params"]["conv"][name])
    node["conv1x1_sobelx3x3"]["conv1x1"]["bias"] += 3.0
    node["conv1x1_sobelx3x3"]["scale"] += 1.0
    changed = {**variables, "params": {"conv": {name: node}}}
    y = evaluated(block.apply)(changed, jnp.zeros((1, 5, 5, 2)))
    assert largest(y) <= 1e-6  # a constant image, border included, has no edges


def test_prelu_has_a_slope_per_channel() -> None:
    x = jnp.array([[-2.0, -2.0], [3.0, 0.0]])
    y = evaluated(PReLU().apply)({"params": {"negative_slope": jnp.array([0.5, 0.1])}}, x)
    np.testing.assert_allclose(y, [[-1.0, -0.2], [3.0, 0.0]])


def test_edge_blocks_add_the_input_only_where_channels_agree() -> None:
    for features, ends in ((4, True), (6, False)):
        block, x = ECB(features, identity=True), jnp.ones((1, 5, 5, 4))
        variables = jax.eval_shape(block.init, jax.random.key(0), x)
        (name,) = variables["params"]["conv"]
        assert name.endswith("+identity") == ends
