"""Networks by name and overrides, as JSON has them."""

from __future__ import annotations

import json

import flax.linen as nn
import jax.numpy as jnp
import pytest

from repjax import models
from repjax.models.described import created, described
from repjax.models.network import Preprocessing


@pytest.mark.parametrize("name", models.names())
def test_every_network_is_made_again(name: str) -> None:
    for model in (models.create(name), models.create(name, num_classes=7, dtype=jnp.bfloat16)):
        again, overrides = json.loads(json.dumps(described(model)))
        assert created(again, overrides) == model


def test_what_was_overridden_is_told_and_nothing_else() -> None:
    changes = {
        "depths": (1, 1, 1, 1),
        "preprocessing": Preprocessing(input_size=(32, 48), mean=(0.5,) * 3),
        "param_dtype": jnp.float16,
        "momentum": 0.99,
    }
    model = models.create("repvgg_b1", in_channels=1, deployed=True, **changes)
    name, overrides = described(model)
    assert name == "repvgg_b1"
    assert set(overrides) == {*changes, "in_channels", "deployed"}
    assert created(name, json.loads(json.dumps(overrides))) == model


def test_functions_and_other_modules_are_refused() -> None:
    model = models.create("fastvit_t8")
    with pytest.raises(TypeError, match=r"Dense is no network of repjax\.models"):
        described(nn.Dense(3))
    odd = model.clone(momentum=lambda: 0.9)
    with pytest.raises(ValueError, match="momentum is a function, which a file cannot hold"):
        described(odd)
    with pytest.raises(ValueError, match="JAX has no type 'float12'"):
        created("fastvit_t8", {"dtype": "float12"})
