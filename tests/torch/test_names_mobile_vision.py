"""Where networks for phones, of unusual shape, lie in PyTorch state dicts."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repjax.models.bottlenecks import Row
from repjax.models.fastvit import FastViT
from repjax.models.fastvit_sizes import FastViTConfig
from repjax.models.ghostnetv3 import GhostNetV3, GhostNetV3Config
from repjax.models.lcnetv2 import LCNetV2, LCNetV2Config
from repjax.models.repghost import RepGhostConfig, RepGhostNet
from repjax.models.repvit import RepViT, RepViTConfig
from repjax.torch import StateDictError, load
from tests.models.values import random_variables
from tests.torch.states import state_of

FASTVIT = FastViT(
    config=FastViTConfig(
        depths=(1, 2, 1, 1),
        widths=(4, 8, 8, 8),
        ratios=(1, 1, 1, 1),
        token_mixers=("repmixer", "attention", "repmixer", "attention"),
        position_kernels=(None, 3, None, 5),
        downsamples=(False, True, False, True),
        head_features=4,
    ),
    num_classes=5,
)
REPVIT = RepViT(config=RepViTConfig(depths=(1, 2), widths=(4, 8), ratios=(2, 1)), num_classes=5)
REPGHOST = RepGhostNet(
    config=RepGhostConfig(rows=((Row(3, 4, 4),), (Row(3, 4, 4), Row(5, 4, 8, 0.5, 2)))),
    num_classes=5,
)
GHOSTNETV3 = GhostNetV3(
    config=GhostNetV3Config(
        rows=((Row(3, 8, 4),), (Row(3, 8, 8), Row(5, 8, 8, 0.5, 2))), gated_from=2
    ),
    num_classes=5,
)
LCNETV2 = LCNetV2(config=LCNetV2Config(0.0625, (1, 1, 2, 1), head_width=8), num_classes=5)
# of each network, by naming: some names that the official code gives
WANTED: dict[str, tuple[Any, str, set[str]]] = {
    "fastvit": (
        FASTVIT,
        "original",
        {
            "patch_embed.2.rbr_conv.0.conv.weight",
            "network.0.0.token_mixer.mixer.rbr_scale.bn.running_var",
            "network.0.0.layer_scale",
            "network.1.proj.0.lkb_origin.conv.weight",
            "network.2.pe.bias",
            "network.3.1.norm.running_mean",
            "network.3.1.token_mixer.qkv.weight",
            "network.3.1.layer_scale_1",
            "network.3.1.layer_scale_2",
            "network.4.0.convffn.conv.bn.bias",
            "network.5.proj.1.rbr_skip.weight",
            "network.6.pe.weight",
            "network.7.0.token_mixer.proj.bias",
            "conv_exp.se.reduce.weight",
            "head.bias",
        },
    ),
    "fastvit, timm": (
        FASTVIT,
        "timm",
        {
            "stem.2.conv_kxk.0.conv.weight",
            "stages.0.blocks.0.token_mixer.mixer.conv_scale.bn.running_var",
            "stages.0.blocks.0.token_mixer.norm.identity.weight",
            "stages.0.blocks.0.layer_scale.gamma",
            "stages.1.downsample.proj.0.large_conv.conv.weight",
            "stages.1.pos_emb.pos_enc.bias",
            "stages.1.blocks.1.layer_scale_2.gamma",
            "stages.2.blocks.0.mlp.conv.bn.bias",
            "stages.3.downsample.proj.1.identity.weight",
            "stages.3.blocks.0.token_mixer.proj.bias",
            "final_conv.se.fc1.weight",
            "head.fc.bias",
        },
    ),
    "repvit": (
        REPVIT,
        "original",
        {
            "features.0.2.c.weight",
            "features.1.token_mixer.1.fc1.bias",
            "features.2.token_mixer.0.conv1.bias",
            "features.3.token_mixer.2.bn.weight",
            "features.3.channel_mixer.m.2.c.weight",
            "features.5.token_mixer.0.bn.running_var",
            "classifier.classifier_dist.l.weight",
        },
    ),
    "repvit, timm": (
        REPVIT,
        "timm",
        {
            "stem.conv2.c.weight",
            "stages.0.blocks.0.se.fc1.bias",
            "stages.1.downsample.pre_block.token_mixer.conv1.bias",
            "stages.1.downsample.channel_downsample.bn.weight",
            "stages.1.downsample.ffn.conv2.c.weight",
            "stages.1.blocks.1.token_mixer.bn.running_var",
            "head.head_dist.l.weight",
        },
    ),
    "repghost": (
        REPGHOST,
        "original",
        {
            "bn1.bias",
            "blocks.1.0.ghost1.fusion_bn.0.weight",
            "blocks.1.1.conv_dw.weight",
            "blocks.1.1.se.conv_expand.bias",
            "blocks.1.1.shortcut.3.running_mean",
            "blocks.2.0.conv.weight",
            "blocks.2.0.bn1.weight",
            "conv_head.bias",
            "classifier.weight",
        },
    ),
    "ghostnetv3": (
        GHOSTNETV3,
        "original",
        {
            "bn1.bias",
            "blocks.0.0.ghost1.primary_rpr_conv.2.conv.weight",
            "blocks.0.0.ghost2.cheap_rpr_skip.running_var",
            "blocks.1.0.ghost1.cheap_rpr_conv.0.bn.weight",
            "blocks.1.1.ghost1.short_conv.4.weight",
            "blocks.1.1.ghost1.short_conv.5.bias",
            "blocks.1.1.dw_rpr_conv.1.bn.running_mean",
            "blocks.1.1.dw_rpr_scale.conv.weight",
            "blocks.1.1.se.conv_expand.bias",
            "blocks.1.1.shortcut.3.running_mean",
            "blocks.2.0.bn1.weight",
            "conv_head.bias",
            "classifier.weight",
        },
    ),
    "ghostnetv3, timm": (
        GHOSTNETV3,
        "timm",
        {
            "bn1.bias",
            "blocks.0.0.ghost1.primary_rpr_conv.2.conv.weight",
            "blocks.0.0.ghost2.cheap_rpr_skip.running_var",
            "blocks.1.0.ghost1.cheap_rpr_conv.0.bn1.weight",
            "blocks.1.1.ghost1.short_conv.4.weight",
            "blocks.1.1.ghost1.short_conv.5.bias",
            "blocks.1.1.dw_rpr_conv.1.bn1.running_mean",
            "blocks.1.1.dw_rpr_scale.conv.weight",
            "blocks.1.1.se.conv_expand.bias",
            "blocks.1.1.shortcut.3.running_mean",
            "blocks.2.0.bn1.weight",
            "conv_head.bias",
            "classifier.weight",
        },
    ),
    "lcnetv2": (
        LCNETV2,
        "timm",
        {
            "stem.0.bn.running_var",
            "stem.1.dw_conv.conv.weight",
            "stages.0.0.pw_conv.bn.bias",
            "stages.2.0.dw_conv_list.1.conv.weight",
            "stages.2.1.dw_conv_list.2.bn.weight",
            "stages.2.1.se.fc1.bias",
            "stages.2.1.pw_conv.0.conv.weight",
            "stages.2.1.pw_conv.1.bn.running_mean",
            "stages.3.0.pw_conv.conv.weight",
            "conv_head.weight",
            "classifier.bias",
        },
    ),
}


@pytest.mark.parametrize("name", WANTED)
@pytest.mark.parametrize("deployed", [False, True])
def test_every_array_has_a_place_and_comes_back(name: str, deployed: bool) -> None:
    model, naming, wanted = WANTED[name]
    form = model.clone(deployed=deployed)
    x = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    variables = random_variables(jax.eval_shape(form.init, jax.random.key(0), x))
    state = state_of(model, variables, naming)
    if not deployed:
        assert wanted <= set(state)
    loaded = load(model, state, naming=naming)
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)
    without = dict(list(state.items())[1:])
    with pytest.raises(ValueError, match=next(iter(state)).replace(".", r"\.") + ": missing"):
        load(model, without, naming=naming)


@pytest.mark.parametrize("name", ["fastvit", "fastvit, timm", "repghost"])
def test_arrays_of_another_shape_are_all_listed(name: str) -> None:
    """Also where the official deploy form would be folded with them."""
    model, naming, _ = WANTED[name]
    x = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    variables = random_variables(jax.eval_shape(model.init, jax.random.key(0), x))
    state = state_of(model, variables, naming)
    vectors = [key for key, array in state.items() if array.ndim == 1]
    broken = {key: np.ones(99, np.float32) if key in vectors else state[key] for key in state}
    with pytest.raises(StateDictError, match=rf", {len(vectors)} problems") as error:
        load(model, broken, naming=naming)
    found = {problem.split(", expected")[0] for problem in error.value.problems}
    assert found == {f"{key}: has shape (99,)" for key in vectors}
