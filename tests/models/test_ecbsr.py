"""ECBSR: shapes, the residual, pixels from channels, and the deploy twin."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import repjax
from repjax.models.ecbsr import CONFIGS, ECBSR, ECBSRConfig, pixel_shuffle
from tests.evaluate import evaluated
from tests.models.values import random_variables
from tests.shapes import shapes_of

SMALL = ECBSRConfig(modules=1, features=4, scale=3)


@pytest.mark.parametrize("name", CONFIGS)
def test_published_networks(name: str) -> None:
    model = ECBSR(CONFIGS[name])
    x = jax.ShapeDtypeStruct((2, 20, 30, 1), jnp.float32)
    variables = shapes_of(model, x)
    deployed = jax.eval_shape(repjax.fuse_params, variables)
    assert jax.tree.map(jnp.shape, deployed) == jax.tree.map(
        jnp.shape, shapes_of(model.deploy(), x)
    )
    config = CONFIGS[name]
    y = jax.eval_shape(model.deploy().apply, deployed, x)
    assert y.shape == (2, 20 * config.scale, 30 * config.scale, 1)
    # six 3x3 convolutions with biases, five of them with slopes
    width, pixels = config.features, config.scale**2
    wanted = 9 * width + 4 * 9 * width**2 + 9 * width * pixels + 5 * 2 * width + pixels
    assert sum(leaf.size for leaf in jax.tree.leaves(deployed)) == wanted


@pytest.mark.parametrize("colors", [1, 3])
@pytest.mark.parametrize("activation", ["prelu", "relu"])
def test_fused_equals_native(colors: int, activation: str, x64: None) -> None:
    config = ECBSRConfig(modules=1, features=4, scale=2, identity=True, activation=activation)
    model = ECBSR(config, in_channels=colors)
    x = np.random.default_rng(0).normal(size=(5, 6, colors))
    shapes = shapes_of(model, x)
    variables = random_variables(jax.tree.map(as_float64, shapes))
    y = evaluated(model.apply)(variables, x)
    z = evaluated(model.deploy().apply)(evaluated(repjax.fuse_params)(variables), x)
    assert y.shape == (10, 12, colors)
    assert np.abs(y - z).max() <= 1e-12 * np.abs(y).max()


def as_float64(leaf: Any) -> Any:
    return jax.ShapeDtypeStruct(leaf.shape, jnp.float64)


def test_blocks_learn_what_nearest_neighbors_lack() -> None:
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 4, 5, 3)), jnp.float32)
    model = ECBSR(SMALL, in_channels=3)
    shapes = shapes_of(model, x)
    silent = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    wanted = np.repeat(np.repeat(x, 3, axis=1), 3, axis=2)
    np.testing.assert_array_equal(evaluated(model.apply)(silent, x), wanted)


def test_pixel_shuffle_place_by_place() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 2 * 9))
    y = pixel_shuffle(jnp.asarray(x), 3)
    assert y.shape == (2, 9, 12, 2)
    for row, column, color in np.ndindex(9, 12, 2):
        channel = color * 9 + row % 3 * 3 + column % 3
        np.testing.assert_array_equal(
            y[:, row, column, color], np.float32(x)[:, row // 3, column // 3, channel]
        )


def test_refuses_other_images() -> None:
    with pytest.raises(ValueError, match="in_channels="):
        ECBSR(SMALL).init(jax.random.key(0), jnp.ones((1, 4, 4, 3)))
