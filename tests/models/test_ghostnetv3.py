"""GhostNetV3: parameters as timm counts them, in both forms, by shape alone."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from repjax import models
from tests.models.counting import count, count_deployed, image, norms_of_one_convolution, traced
from tests.models.sampled import sampled

# of timm's train form and of its deploy form, which keeps the norms of single convolutions
PARAMETERS = {
    "ghostnetv3_050": (3_395_384, 2_853_176),
    "ghostnetv3_100": (8_129_028, 6_147_588),
    "ghostnetv3_130": (12_217_720, 8_948_296),
    "ghostnetv3_160": (17_275_700, 12_377_778),
}
# 16 bottlenecks of two modules, 14 gates of three, 4 depthwise sums, 5 shortcuts of two, two ends
CONVOLUTIONS = 16 * 4 + 14 * 3 + 4 + 5 * 2 + 2


@pytest.mark.parametrize("name", sampled(PARAMETERS, "ghostnetv3_050"))
def test_counts(name: str) -> None:
    model = models.create(name)
    train, deployed = count(model), count_deployed(model)
    kept = norms_of_one_convolution(traced(model, image(224))[1])
    assert (train.parameters, deployed.parameters + kept) == PARAMETERS[name]
    assert (train.norms, deployed.norms) == (326, 0)
    assert deployed.convolutions == CONVOLUTIONS


def test_names_and_preprocessing_are_those_of_timm() -> None:
    names = [name for name in models.names() if name.startswith("ghostnetv3")]
    assert names == list(PARAMETERS)
    wanted = models.Preprocessing(
        (224, 224), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 0.875, "bicubic"
    )
    assert {models.create(name).config.preprocessing for name in names} == {wanted}


def test_images_too_small_for_a_gate_are_refused() -> None:
    with pytest.raises(ValueError, match="averages over 2x2, found 1x2"):
        jax.eval_shape(
            models.create("ghostnetv3_050").init, jax.random.key(0), jnp.ones((32, 64, 3))
        )


def test_gates_begin_with_the_third_bottleneck() -> None:
    model = models.create("ghostnetv3_050")
    params = traced(model, image(224))[1]["params"]
    ghost = params["stage3_block0"]["ghost1"]
    assert set(ghost) == {"primary", "cheap", "gate_pointwise", "gate_row", "gate_column"}
    assert "gate_row" not in params["stage2_block0"]["ghost1"]
    (name,) = params["stage2_block0"]["depthwise"]
    assert name == "y=3*norm(conv3x3)+norm(conv1x1)"
