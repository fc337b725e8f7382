"""PP-LCNetV2: parameters as timm counts them, in both forms, by shape alone."""

from __future__ import annotations

import pytest

from repjax import models
from tests.models.counting import count, count_deployed, image, norms_of_one_convolution, traced
from tests.models.sampled import sampled
from tests.shapes import shapes_of

# of timm's train form and of its deploy form, which keeps the norms of single convolutions
PARAMETERS = {
    "lcnetv2_small": (4_128_552, 4_092_840),
    "lcnetv2_base": (6_687_208, 6_624_232),
    "lcnetv2_large": (10_542_120, 10_444_200),
}
NORMS = {"lcnetv2_small": 37, "lcnetv2_base": 47, "lcnetv2_large": 57}


@pytest.mark.parametrize("name", sampled(PARAMETERS, "lcnetv2_base"))
def test_counts(name: str) -> None:
    model = models.create(name)
    train, deployed = count(model), count_deployed(model)
    kept = norms_of_one_convolution(traced(model, image(224))[1])
    assert (train.parameters, deployed.parameters + kept) == PARAMETERS[name]
    assert (train.norms, deployed.norms) == (NORMS[name], 0)
    depths = model.config.depths
    assert deployed.convolutions == 3 + 2 * sum(depths) + depths[2]


def test_names_and_preprocessing_are_those_of_timm() -> None:
    names = [name for name in models.names() if name.startswith("lcnetv2")]
    assert names == list(PARAMETERS)
    wanted = models.Preprocessing(
        (224, 224), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 0.875, "bicubic"
    )
    assert {models.create(name).config.preprocessing for name in names} == {wanted}


def test_a_sum_with_strides_has_no_1x1() -> None:
    model = models.create("lcnetv2_base")
    params = shapes_of(model, image(64))["params"]
    found = [list(params[f"stage3_block{index}"]["depthwise"]) for index in (0, 1)]
    five_three = "y=norm(conv5x5)+norm(conv3x3)"
    assert found == [[five_three], [f"{five_three}+norm(conv1x1)"]]


def test_one_entry_per_stage() -> None:
    with pytest.raises(ValueError, match="one entry per stage expected"):
        models.create("lcnetv2_base", multi_scale=(True,))
