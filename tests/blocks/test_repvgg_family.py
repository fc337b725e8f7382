"""RepVGG, MobileOne, QARepVGG and YOLO blocks against their formulas, written out in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import repjax
from repjax.blocks.mobileone import MobileOneBlock
from repjax.blocks.qarepvgg import QARepVGGBlock
from repjax.blocks.repvgg import RepVGGBlock
from repjax.blocks.squeeze_excite import SqueezeExcite, rounded_width
from repjax.blocks.yolo import YOLORepConv
from tests.evaluate import evaluated
from tests.models.values import random_variables
from tests.shapes import shapes_of

INPUTS = 4


def convolve(x: Any, kernel: Any, strides: int, groups: int) -> Any:
    """A convolution padded to keep the size, tap by tap."""
    size = kernel.shape[0]
    low = (size - 1) // 2
    x = np.pad(x, ((0, 0), (low, size - 1 - low), (low, size - 1 - low), (0, 0)))
    height, width = x.shape[1] - size + 1, x.shape[2] - size + 1
    per = kernel.shape[2]
    features = kernel.shape[3] // groups
    out = np.zeros((len(x), height, width, kernel.shape[3]))
    for g in range(groups):
        data, weights = x[..., g * per : (g + 1) * per], kernel[..., g * features :][..., :features]
        for u in range(size):
            for v in range(size):
                view = data[:, u : u + height, v : v + width]
                out[..., g * features : (g + 1) * features] += view @ weights[u, v]
    return out[:, ::strides, ::strides]


def norm(x: Any, params: Any, statistics: Any, epsilon: float) -> Any:
    scaled = (x - statistics["mean"]) / np.sqrt(statistics["var"] + epsilon)
    return scaled * params["scale"] + params["bias"]


def gate(x: Any, params: Any) -> Any:
    pooled = x.mean((1, 2)) @ params["reduce"]["kernel"] + params["reduce"]["bias"]
    expanded = np.maximum(pooled, 0) @ params["expand"]["kernel"] + params["expand"]["bias"]
    return x / (1 + np.exp(-expanded))[:, None, None]


def total(block: Any, node: Any, statistics: Any, x: Any) -> Any:
    """The sum of the branches in a node, each with its norm where it has one."""
    y = 0
    for name, params in node.items():
        if name == "norm":
            continue
        branch = x
        if "kernel" in params:
            branch = convolve(x, params["kernel"], block.strides, block.groups)
        if "norm" in params:
            branch = norm(branch, params["norm"], statistics[name]["norm"], block.epsilon)
        y = y + branch
    return y


def expected(block: Any, variables: Any, x: Any) -> Any:
    params, statistics = variables["params"], variables["batch_stats"]
    ((name, node),) = params["conv"].items()
    stats = statistics["conv"][name]
    y = total(block, node, stats, x)
    if isinstance(block, QARepVGGBlock) and name.endswith("+identity)") and "norm" not in node:
        raise AssertionError("the norm of the sum is missing")
    if "+identity)" in name and "norm(identity" not in name:
        y = y + x  # a bare identity has no node
    if "norm" in node:
        y = norm(y, node["norm"], stats["norm"], block.epsilon)
    if "squeeze_excite" in params:
        y = gate(y, params["squeeze_excite"])
    if "norm" in params:
        y = norm(y, params["norm"], statistics["norm"], block.epsilon)
    return np.asarray(block.activation(y))


BLOCKS: dict[str, Callable[[], Any]] = {
    "repvgg": lambda: RepVGGBlock(4),
    "repvgg_gated": lambda: RepVGGBlock(4, squeeze_excite=2),
    "repvgg_strides": lambda: RepVGGBlock(6, strides=2),
    "repvgg_groups": lambda: RepVGGBlock(4, groups=2),
    "mobileone_depthwise": lambda: MobileOneBlock(4, groups=4, copies=3),
    "mobileone_5x5": lambda: MobileOneBlock(4, 5, 2, copies=2),
    "mobileone_pointwise": lambda: MobileOneBlock(6, 1, copies=2, squeeze_excite=2),
    "mobileone_no_copies": lambda: MobileOneBlock(4, 3, copies=0),
    "qarepvgg_v1": lambda: QARepVGGBlock(4, version=1),
    "qarepvgg_v2": lambda: QARepVGGBlock(4),
    "qarepvgg_strides": lambda: QARepVGGBlock(6, strides=2, groups=2),
    "yolo": lambda: YOLORepConv(4),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_formula_and_fold(name: str, x64: None) -> None:
    block = BLOCKS[name]().clone(param_dtype=jnp.float64)
    x = np.random.default_rng(1).normal(size=(2, 7, 6, INPUTS))
    variables = random_variables(shapes_of(block, x))
    wanted = expected(block, jax.tree.map(np.asarray, variables), x)
    np.testing.assert_allclose(evaluated(block.apply)(variables, x), wanted, rtol=0, atol=1e-12)
    deployed = repjax.fuse_params(variables)
    twin = block.deploy()
    shapes = shapes_of(twin, x)
    assert jax.tree.map(jnp.shape, deployed) == jax.tree.map(lambda leaf: leaf.shape, shapes)
    np.testing.assert_allclose(evaluated(twin.apply)(deployed, x), wanted, rtol=0, atol=1e-12)
    assert list(deployed["params"]["conv"]) == ["kernel", "bias"]


def test_the_norm_after_a_gate_stays(x64: None) -> None:
    block = QARepVGGBlock(4, squeeze_excite=2, param_dtype=jnp.float64)
    x = np.random.default_rng(1).normal(size=(2, 7, 6, INPUTS))
    variables = random_variables(shapes_of(block, x))
    (name,) = variables["params"]["conv"]
    assert name == "y=norm(conv3x3)+conv1x1+identity"
    deployed = evaluated(repjax.fuse_params)(variables)
    assert set(deployed["batch_stats"]) == {"norm"}
    y, z = evaluated(block.apply)(variables, x), evaluated(block.deploy().apply)(deployed, x)
    np.testing.assert_allclose(y, z, rtol=0, atol=1e-12)


def test_average_branch_of_yolov6(x64: None) -> None:
    block = QARepVGGBlock(4, average=True, epsilon=1e-3, param_dtype=jnp.float64)
    x = np.random.default_rng(1).normal(size=(1, 5, 6, INPUTS))
    variables = random_variables(shapes_of(block, x))
    (name,) = variables["params"]["conv"]
    assert name.endswith("+identity+average3x3)")
    y = evaluated(block.apply)(variables, x)
    z = evaluated(block.deploy().apply)(evaluated(repjax.fuse_params)(variables), x)
    np.testing.assert_allclose(y, z, rtol=0, atol=1e-12)


def test_square_window_only_on_request() -> None:
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 7, 5, 4)), jnp.float32)
    whole, square = SqueezeExcite(2), SqueezeExcite(2, square_window=True)
    variables = random_variables(shapes_of(whole, x))
    gates = evaluated(square.apply)(variables, x) / x
    wanted = (evaluated(whole.apply)(variables, x[:, :5]) / x[:, :5])[:, :1, :1]
    np.testing.assert_allclose(gates, jnp.broadcast_to(wanted, x.shape), rtol=1e-4)
    y, z = evaluated(square.apply)(variables, x), evaluated(whole.apply)(variables, x)
    assert np.abs(y - z).max() > 1e-3
    with pytest.raises(ValueError, match="no single place on a map of 5x7"):
        square.apply(variables, x.transpose(0, 2, 1, 3))


@pytest.mark.parametrize(
    ("channels", "divisor", "limit", "wanted"),
    [(20, 8, 0.0, 24), (19, 8, 0.0, 16), (3, 8, 0.0, 8), (11, 8, 0.9, 16), (2.5, 1, 0.0, 3)],
)
def test_rounded_width(channels: float, divisor: int, limit: float, wanted: int) -> None:
    assert rounded_width(channels, divisor, limit) == wanted


def test_activation_can_be_left_out() -> None:
    x = jnp.ones((1, 5, 5, 4))
    for block in (RepVGGBlock(4), MobileOneBlock(4), QARepVGGBlock(4)):
        variables = random_variables(shapes_of(block, x))
        bare = evaluated(block.clone(activation=None).apply)(variables, x)
        np.testing.assert_array_equal(nn.relu(bare), evaluated(block.apply)(variables, x))
        assert bool((bare < 0).any())
