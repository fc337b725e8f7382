"""`create` and `names`: overrides, and what is refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from repjax import models
from tests.shapes import shapes_of


def test_names_are_snake_case_and_unique() -> None:
    names = models.names()
    assert len(names) == len(set(names))
    assert all(name == name.lower() and "-" not in name for name in names)


def test_overrides_reach_configuration_and_module() -> None:
    model = models.create(
        "repvgg_b1g4", num_classes=7, in_channels=4, depths=[1, 1, 1, 1], momentum=0.5
    )
    assert model.config.depths == (1, 1, 1, 1)
    assert (model.num_classes, model.in_channels, model.momentum) == (7, 4, 0.5)
    assert hash(model.config) is not None
    assert model.deploy().deployed
    assert not model.deployed


def test_preprocessing_is_part_of_the_configuration() -> None:
    for name in models.names():
        preprocessing = models.create(name).config.preprocessing
        assert len(preprocessing.mean) == len(preprocessing.std) == 3
        assert 0 < preprocessing.crop <= 1


def test_unknown_names_and_overrides_are_refused() -> None:
    with pytest.raises(ValueError, match="did you mean repvgg_a0"):
        models.create("RepVGG_A0".lower().replace("_a", "_aa"))
    with pytest.raises(ValueError, match="knows no depht, witdhs"):
        models.create("repvgg_a0", depht=(1, 1, 1, 1), witdhs=(4, 4, 4, 4))
    with pytest.raises(ValueError, match="no drop path"):
        models.create("repvgg_a0", drop_path=0.1)
    assert models.create("repvgg_a0", drop_path=0.0).num_classes == 1000


def test_compute_type() -> None:
    sizes = {"depths": (1, 1, 1, 1), "widths": (4, 4, 4, 4)}
    model = models.create("repvgg_a0", dtype=jnp.bfloat16, **sizes)
    x = jnp.ones((1, 32, 32, 3))
    variables = shapes_of(model, x)
    assert jax.eval_shape(model.apply, variables, x).dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
