"""The blocks of networks for phones: sizes, strides, and what attention computes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import repjax
from repjax.blocks.drop_path import DropPath
from repjax.blocks.fastvit import PatchEmbed, RepCPE, RepMixer
from repjax.blocks.fastvit_stages import AttentionBlock, ConvFFN, RepMixerBlock
from repjax.blocks.ghostnetv3 import GhostBottleneckV3, GhostModuleV3
from repjax.blocks.lcnetv2 import LCNetV2Block
from repjax.blocks.repghost import RepGhostBottleneck, RepGhostModule
from repjax.blocks.repvit import NormLinears, RepVGGDW, RepViTBlock
from tests.blocks.cases import largest, random_variables
from tests.evaluate import evaluated

BLOCKS: dict[str, Any] = {
    "mixer": RepMixer(),
    "mixer, 5x5, no scale": RepMixer(5, None),
    "mixer, 1x1": RepMixer(1),
    "position": RepCPE(5),
    "patches": PatchEmbed(8),
    "patches, gate, activation": PatchEmbed(4, 5, 5, 1, squeeze_excite=True, activation=True),
    "feed-forward": ConvFFN(1.5),
    "mixer block": RepMixerBlock(ratio=2, layer_scale=None),
    "attention": AttentionBlock(ratio=1, head_features=2),
    "attention, no scale": AttentionBlock(ratio=1, head_features=4, layer_scale=None),
    "attention, layer norm": AttentionBlock(ratio=1, head_features=2, norm="layer"),
    "RepVGGDW": RepVGGDW(),
    "RepVGGDW, 5x5": RepVGGDW(5),
    "RepVGGDW, legacy": RepVGGDW(legacy=True),
    "RepViT": RepViTBlock(4, squeeze_excite=True),
    "RepViT, strides": RepViTBlock(6, 5, 2, squeeze_excite=True, ratio=1.5),
    "ghost": RepGhostModule(6),
    "ghost, strides": RepGhostModule(6, 3, 5, 2, relu=False, identity_branch=True),
    "ghost, nothing beside": RepGhostModule(6, norm_branch=False),
    "bottleneck": RepGhostBottleneck(6, 4, squeeze_excite=0.5),
    "bottleneck, strides": RepGhostBottleneck(6, 5, 5, 2),
    "bottleneck, no shortcut": RepGhostBottleneck(6, 4, shortcut=False),
    "ghost V3": GhostModuleV3(6),
    "ghost V3, gate, one copy": GhostModuleV3(6, 1, relu=False, gated=True),
    "bottleneck V3": GhostBottleneckV3(8, 4, squeeze_excite=0.5, gated=True),
    "bottleneck V3, strides": GhostBottleneckV3(8, 6, 5, 2),
    "LCNetV2": LCNetV2Block(4, 5, multi_scale=True, squeeze_excite=0.5, shortcut=True),
    "LCNetV2, strides": LCNetV2Block(6, 5, 2, multi_scale=True, pointwise_ratio=0.5),
    "LCNetV2, one kernel": LCNetV2Block(6),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_fuses_without_a_norm_left(x64: None, name: str) -> None:
    block = BLOCKS[name]
    x = np.random.default_rng(0).normal(size=(2, 9, 8, 4))
    variables = random_variables(block, x)
    deployed = evaluated(repjax.fuse_params)(variables)
    twin = jax.eval_shape(block.deploy().init, jax.random.key(0), x)
    assert list(deployed) == ["params"]
    assert jax.tree.map(jnp.shape, deployed) == jax.tree.map(jnp.shape, twin)
    native = evaluated(block.apply)(variables, x)
    fused = evaluated(block.deploy().apply)(deployed, x)
    assert largest(native - fused) <= 1e-12 * largest(native)


@pytest.mark.parametrize("name", BLOCKS)
def test_trains_by_shape(name: str) -> None:
    block = BLOCKS[name]
    x = jax.ShapeDtypeStruct((2, 9, 8, 4), jnp.float32)
    variables = jax.eval_shape(block.init, jax.random.key(0), x)

    def train(variables: Any, x: Any) -> Any:
        return block.apply(variables, x, train=True, mutable=["batch_stats"])

    y, changed = jax.eval_shape(train, variables, x)
    assert y == jax.eval_shape(block.apply, variables, x)
    assert changed.get("batch_stats") == variables.get("batch_stats")


def test_attention_attends_to_all_positions(x64: None) -> None:
    """Against attention written out, head by head and position by position."""
    block = AttentionBlock(ratio=1, head_features=2, layer_scale=None)
    x = np.random.default_rng(0).normal(size=(3, 2, 4))
    variables = random_variables(block, x)
    params = variables["params"]
    params["feed_forward"] = jax.tree.map(np.zeros_like, params["feed_forward"])
    (norm_node,) = params["query_key_value"].values()
    (statistics,) = variables["batch_stats"]["query_key_value"].values()
    norm, running = norm_node["identity"]["norm"], statistics["identity"]["norm"]
    (project,) = params["project"].values()

    tokens = x.reshape(6, 4)
    normed = (tokens - running["mean"]) / np.sqrt(running["var"] + 1e-5)
    normed = normed * norm["scale"] + norm["bias"]
    mapped = (normed @ norm_node["conv1x1"]["kernel"][0, 0]).reshape(6, 3, 2, 2)
    mixed = np.zeros((6, 2, 2))
    for head in range(2):
        query, key, value = (mapped[:, number, head] for number in range(3))
        for position in range(6):
            weights = np.exp(key @ query[position] / np.sqrt(2))
            mixed[position, head] = weights @ value / weights.sum()
    wanted = tokens + mixed.reshape(6, 4) @ project["kernel"][0, 0] + project["bias"]

    found = np.asarray(evaluated(block.apply)(variables, x)).reshape(6, 4)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)


def test_channels_that_do_not_fit_are_refused() -> None:
    x = jnp.ones((1, 8, 8, 6))
    with pytest.raises(ValueError, match="6 channels are no multiple of head_features=4"):
        jax.eval_shape(AttentionBlock(head_features=4).init, jax.random.key(0), x)
    with pytest.raises(ValueError, match=r"keeps its 6 channels, found features=8"):
        jax.eval_shape(RepViTBlock(8).init, jax.random.key(0), x)


def test_ghosts_come_in_pairs_and_gates_need_two_rows() -> None:
    with pytest.raises(ValueError, match=r"features is an even number, .* found 5"):
        jax.eval_shape(GhostModuleV3(5).init, jax.random.key(0), jnp.ones((1, 8, 8, 4)))
    gated = GhostModuleV3(6, gated=True)
    with pytest.raises(ValueError, match="averages over 2x2, found 1x8; give larger images"):
        jax.eval_shape(gated.init, jax.random.key(0), jnp.ones((1, 1, 8, 4)))


def test_heads_are_two_while_training_and_their_mean_after(x64: None) -> None:
    head = NormLinears(3, heads=2)
    x = np.random.default_rng(0).normal(size=(5, 4))
    variables = random_variables(head, x)
    (one, two), _ = head.apply(variables, x, train=True, mutable=["batch_stats"])
    assert one.shape == two.shape == (5, 3)
    deployed = evaluated(repjax.fuse_params)(variables)
    assert jax.tree.map(jnp.shape, deployed) == {"params": {"kernel": (4, 3), "bias": (3,)}}
    y = evaluated(head.deploy().apply)(deployed, x)
    np.testing.assert_allclose(y, evaluated(head.apply)(variables, x), rtol=0, atol=1e-12)
    single = NormLinears(3)
    alone = {
        collection: {name: {"head0": node["head1"]} for name, node in tree.items()}
        for collection, tree in variables.items()
    }
    both = (evaluated(head.apply)(variables, x) * 2 - evaluated(single.apply)(alone, x)) - y
    assert largest(both) > 0.01  # the heads differ, so that a mean of one head twice would show


def test_a_head_whose_norm_has_a_zero_scale_cannot_be_unfused() -> None:
    head = NormLinears(3, heads=2)
    like = random_variables(head, np.zeros((5, 4)))
    (node,) = like["params"].values()
    node["head0"]["norm"]["scale"] = np.array([1.0, 0.0, 1.0, 1.0])
    with pytest.raises(repjax.NotFusableError, match=r"mean_of_norm_linears: .* norm of head0 is"):
        repjax.unfuse_params(repjax.fuse_params(like), like)


def test_layer_scale_starts_where_it_is_published() -> None:
    block = RepMixer(layer_scale=1e-6)
    variables = evaluated(block.init)(jax.random.key(0), jnp.ones((1, 8, 8, 4)))
    (node,) = variables["params"]["conv"].values()
    np.testing.assert_array_equal(node["sum"]["scale"], np.full(4, 1e-6, np.float32))


def test_channel_mixers_start_at_zero() -> None:
    block = RepViTBlock(4)
    variables = evaluated(block.init)(jax.random.key(0), jnp.ones((1, 8, 8, 4)))
    (node,) = variables["params"]["channel_mixer2"].values()
    np.testing.assert_array_equal(node["norm"]["scale"], np.zeros(4, np.float32))


@pytest.mark.parametrize("shape", [(4000, 2, 3, 2), (40, 100, 2, 3, 2)])
def test_drop_path_drops_whole_examples(shape: tuple[int, ...]) -> None:
    layer = DropPath(0.25)
    x = jnp.ones(shape)
    y = layer.apply({}, x, train=True, rngs={"dropout": jax.random.key(0)})
    examples = np.asarray(y).reshape(4000, -1)
    assert (examples == examples[:, :1]).all()
    assert abs((examples[:, 0] == 0).mean() - 0.25) < 0.03
    assert set(examples[:, 0]) == {0.0, np.float32(1 / 0.75)}
    assert layer.apply({}, x) is x


def test_drop_path_refuses_other_rates() -> None:
    with pytest.raises(ValueError, match=r"found 1.0, expected 0 <= rate < 1"):
        DropPath(1.0).apply({}, jnp.ones((1, 2, 2, 1)))
