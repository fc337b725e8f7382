"""FastViT, RepViT and RepGhost networks: parameters, operations and shapes, by shape alone."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import repjax
from repjax import models
from repjax.models.bottlenecks import Row
from tests.evaluate import evaluated
from tests.models.counting import shape, traced
from tests.models.sampled import sampled
from tests.models.values import random_variables
from tests.shapes import shapes_of

# Published deploy counts of FastViT keep norms and layer scales that ours folds.
PARAMETERS = {
    "fastvit_t8": (4_026_232, 3_996_040),
    "fastvit_t12": (7_553_704, 7_508_840),
    "fastvit_s12": (9_473_576, 9_428_712),
    "fastvit_sa12": (11_580_968, 11_545_320),
    "fastvit_sa24": (21_554_216, 21_501_288),
    "fastvit_sa36": (31_527_464, 31_457_256),
    "fastvit_ma36": (44_068_004, 43_984_632),
    "repvit_m0_9": (5_489_328, 5_067_056),
    "repvit_m1_0": (7_302_796, 6_810_312),
    "repvit_m1_1": (8_802_912, 8_244_312),
    "repvit_m1_5": (14_644_432, 14_049_992),
    "repvit_m2_3": (23_688_792, 22_926_792),
}
# millions; these were published rounded, and keep the norms of dense convolutions
MILLIONS = {
    "repghostnet_050": (2.31, 2.31),
    "repghostnet_100": (4.07, 4.06),
    "repghostnet_200": (9.8, 9.77),
}
# millions of parameters of the train form and its outputs, as timm lists them
LISTED = {
    "repvit_m1": (5.49, 1000),
    "repvit_m2": (8.8, 1000),
    "repvit_m3": (10.68, 1000),
    "fastvit_mci0": (11.41, 512),
    "fastvit_mci1": (21.54, 512),
    "fastvit_mci2": (35.82, 512),
}
# of the official deploy form, which keeps the norm of the 7x7 convolutions and layer scales
LISTED_DEPLOYED = {"fastvit_mci3": (125.07, 768), "fastvit_mci4": (321.57, 768)}
# (10^9 multiply-accumulates, 10^6 activations), train and deploy
OPERATIONS = {
    "fastvit_t8": ((0.7, 8.63), (0.69, 6.59)),
    "fastvit_t12": ((1.42, 12.42), (1.39, 9.57)),
    "fastvit_s12": ((1.82, 13.67), (1.8, 10.82)),
    "fastvit_sa12": ((1.96, 14.03), (1.94, 11.24)),
    "fastvit_sa24": ((3.8, 24.32), (3.77, 20.35)),
    "fastvit_sa36": ((5.64, 34.61), (5.59, 29.46)),
    "fastvit_ma36": ((7.88, 41.09), (7.82, 34.98)),
    "repvit_m0_9": ((0.83, 7.45), (0.82, 6.17)),
    "repvit_m1_0": ((1.13, 8.69), (1.11, 7.19)),
    "repvit_m1_1": ((1.36, 9.43), (1.34, 7.82)),
    "repvit_m1_5": ((2.31, 15.7), (2.27, 12.84)),
    "repvit_m2_3": ((4.57, 26.21), (4.52, 21.32)),
    "repghostnet_050": ((0.05, 2.02), (0.05, 2.02)),
    "repghostnet_100": ((0.15, 3.98), (0.15, 3.98)),
    "repghostnet_200": ((0.54, 7.96), (0.53, 7.96)),
}
# what the official deploy form keeps and ours folds: norms at these places, and layer scales
KEPT = {"fastvit": ("feed_forward", "query_key_value"), "repvit": (), "repghostnet": ("",)}


def kept_norms(name: str, program: Any, *arguments: Any) -> tuple[Any, int, int]:
    """What a program returns, and what folding norms that are officially kept saves.

    That is parameters, and elements that are normed no more.
    """
    places = KEPT[name.split("_")[0]]
    saved = elements = 0

    def watch(call: Any, arguments: Any, keywords: Any, context: Any) -> Any:
        nonlocal saved, elements
        y = call(*arguments, **keywords)
        path = "/".join(context.module.path)
        here = any(place in path for place in places) and "cheap" not in path
        norm = isinstance(context.module, nn.BatchNorm) and context.method_name == "__call__"
        if norm and here:
            # scale and bias go; a bias comes, after the next map where the norm is in front
            saved += (2 - (3 if "query_key_value" in path else 1)) * y.shape[-1]
            elements += y.size
        return y

    with nn.intercept_methods(watch):
        result = program(*arguments)
    return result, saved, elements


def kept_scales(variables: Any) -> int:
    """Parameters of the layer scales that are officially kept."""
    leaves = jax.tree_util.tree_leaves_with_path(variables["params"])
    paths = [([key.key for key in path], leaf) for path, leaf in leaves]
    linear = ("pointwise2", "project")
    return sum(leaf.size for p, leaf in paths if p[-1] == "scale" and p[-3] in linear)


DEFAULT = ("fastvit_t8", "fastvit_ma36", "repvit_m0_9", "repghostnet_050")


@pytest.mark.parametrize("name", sampled([*PARAMETERS, *MILLIONS], *DEFAULT))
def test_counts(name: str) -> None:
    model = models.create(name)
    height, width = model.config.preprocessing.input_size
    x = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
    (train, variables), saved, elements = kept_norms(name, traced, model, x)
    deploy, twin = traced(model.deploy(), x)
    deployed = jax.eval_shape(repjax.fuse_params, variables)
    assert jax.tree.map(shape, deployed) == jax.tree.map(shape, twin)
    parameters = train.parameters, deploy.parameters + saved + kept_scales(variables)
    assert deploy.norms == 0
    if name in PARAMETERS:
        assert parameters == PARAMETERS[name]
    else:
        assert tuple(round(number / 1e6, 2) for number in parameters) == MILLIONS[name]
    # a norm counts two multiply-accumulates for each element
    macs = train.macs, deploy.macs + 2 * elements
    activations = train.activations, deploy.activations
    for found, (wanted, _) in zip(macs, OPERATIONS[name], strict=True):
        assert found / 1e9 == pytest.approx(wanted, abs=0.0051)
    for found, (_, wanted) in zip(activations, OPERATIONS[name], strict=True):
        assert found / 1e6 == pytest.approx(wanted, abs=0.0051)


@pytest.mark.parametrize("name", LISTED)
def test_parameters_of_towers_and_first_versions(name: str) -> None:
    wanted, classes = LISTED[name]
    assert round(parameters(models.create(name, num_classes=classes)) / 1e6, 2) == wanted


@pytest.mark.parametrize("name", LISTED_DEPLOYED)
def test_parameters_of_towers_with_layer_norm(name: str) -> None:
    wanted, classes = LISTED_DEPLOYED[name]
    config = models.create(name).config
    channels = [depth * width for depth, width in zip(config.depths, config.widths, strict=True)]
    kept = 2 * sum(channels) + sum(channels[config.token_mixers.index("attention") :])
    deployed = parameters(models.create(name, num_classes=classes, deployed=True))
    assert round((deployed + kept) / 1e6, 2) == wanted


def parameters(model: Any) -> int:
    x = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    shapes = shapes_of(model, x)
    return sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))


def test_every_network_is_listed() -> None:
    ours = [name for name in models.names() if name.startswith(("fastvit", "repvit"))]
    assert set(ours) == {*PARAMETERS, *LISTED, *LISTED_DEPLOYED}
    ghosts = [name for name in models.names() if name.startswith("repghost")]
    sizes = ("050", "058", "080", "100", "111", "130", "150", "200")
    assert ghosts == [f"repghostnet_{size}" for size in sizes]


SMALL: dict[str, dict[str, Any]] = {
    "fastvit_sa12": {
        "depths": (1, 1, 1, 1),
        "widths": (4, 4, 8, 8),
        "ratios": (1, 1, 1, 1),
        "head_features": 4,
    },
    "repvit_m0_9": {"depths": (1, 1, 1), "widths": (4, 8, 8), "ratios": (2, 1, 1)},
    "repghostnet_050": {
        "rows": ((Row(3, 8, 16),), (Row(5, 8, 24, 0.25, 2), Row(3, 8, 24))),
        "head_width": 8,
    },
}
SMALL["ghostnetv3_050"] = {**SMALL["repghostnet_050"], "gated_from": 1}
SMALL["lcnetv2_small"] = {"width": 0.0625, "depths": (1, 1, 1, 2), "head_width": 8}
STRIDES = {"fastvit_sa12": (4, 8, 16, 32), "repvit_m0_9": (4, 8, 16)}
STRIDES["repghostnet_050"] = STRIDES["ghostnetv3_050"] = (2, 4)
STRIDES["lcnetv2_small"] = (4, 8, 16, 32)


@pytest.mark.parametrize("name", SMALL)
def test_features_unbatched_images_and_fusing(name: str) -> None:
    model = models.create(name, num_classes=5, **SMALL[name])
    x = np.random.default_rng(0).normal(size=(2, 64, 96, 3)).astype(np.float32)
    shapes = shapes_of(model, x)
    variables = random_variables(shapes)

    features = jax.eval_shape(lambda v, x: model.apply(v, x, method="features"), variables, x)
    sizes = [y.shape[1:3] for y in features]
    assert sizes == [(math.ceil(64 / s), math.ceil(96 / s)) for s in STRIDES[name]]

    logits = evaluated(model.apply)(variables, x)
    assert logits.shape == (2, 5)
    one = evaluated(model.deploy().apply)(evaluated(repjax.fuse_params)(variables), x[0])
    assert one.shape == (5,)
    np.testing.assert_allclose(one, logits[0], rtol=0, atol=2e-4 * np.abs(logits).max())


@pytest.mark.parametrize("name", SMALL)
def test_trains_by_shape(name: str) -> None:
    """In bfloat16 with drop path; RepViT gives the logits of both heads."""
    drop_path = {"drop_path": 0.1} if name.startswith("fastvit") else {}
    model = models.create(name, num_classes=5, dtype=jnp.bfloat16, **drop_path, **SMALL[name])
    x = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
    variables = shapes_of(model, x)

    def train(variables: Any, x: Any) -> Any:
        rngs = {"dropout": jax.random.key(0)}
        return model.apply(variables, x, train=True, mutable=["batch_stats"], rngs=rngs)

    logits, changed = jax.eval_shape(train, variables, x)
    assert all(leaf.shape == (2, 5) for leaf in jax.tree.leaves(logits))
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(logits))
    assert len(jax.tree.leaves(logits)) == (2 if name.startswith("repvit") else 1)
    assert changed["batch_stats"] == variables["batch_stats"]


def test_an_unknown_token_mixer_is_refused() -> None:
    model = models.create("fastvit_t8", token_mixers=("repmixer", "pool", "repmixer", "repmixer"))
    with pytest.raises(ValueError, match=r"stage 2: found 'pool', expected 'repmixer'"):
        jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, 64, 64, 3)))
