"""The block that started the project: ``conv3x3(x) + conv1x1(x) + x``."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import repjax
from repjax.blocks import ResidualConv
from tests.blocks.cases import convolutions, largest, random_variables
from tests.evaluate import evaluated

NAME = "y=conv3x3[bias]+conv1x1[bias]+identity"


def test_ones_by_hand() -> None:
    """All ones, two channels of 9x9: taps are 1, the center 1 + 1, and 1 more on its own."""
    x = jnp.ones((1, 9, 9, 2))
    block = ResidualConv(2)
    shapes = jax.eval_shape(block.init, jax.random.key(0), x)
    variables = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), shapes)
    fused = repjax.fuse_params(variables)["params"]
    kernel = np.ones((3, 3, 2, 2))
    kernel[1, 1] = [[3, 2], [2, 3]]
    np.testing.assert_array_equal(fused["kernel"], kernel)
    np.testing.assert_array_equal(fused["bias"], [2, 2])
    y = evaluated(block.apply)(variables, x)[0, :, :, 0]
    wanted = np.full((9, 9), 18 + 2 + 1 + 2)
    wanted[[0, -1], :] = wanted[:, [0, -1]] = 12 + 2 + 1 + 2
    for corner in [(0, 0), (0, -1), (-1, 0), (-1, -1)]:
        wanted[corner] = 8 + 2 + 1 + 2
    np.testing.assert_array_equal(y, wanted)
    deployed = evaluated(block.deploy().apply)({"params": fused}, x)
    np.testing.assert_array_equal(deployed[0, :, :, 0], wanted)


@pytest.mark.usefixtures("x64")
def test_three_convolutions_become_one_with_the_same_output() -> None:
    x = np.random.default_rng(0).normal(size=(2, 9, 8, 6))
    block = ResidualConv(6)
    variables = random_variables(block, x)
    fused = repjax.fuse_params(variables)
    native = evaluated(block.apply)(variables, x)
    deployed = evaluated(block.deploy().apply)(fused, x)
    assert largest(native - deployed) <= 1e-12 * largest(native)
    assert convolutions(block.apply, variables, x) == 2
    assert convolutions(block.deploy().apply, fused, x) == 1


def test_a_bare_params_tree_is_enough() -> None:
    x = jnp.ones((1, 9, 9, 2))
    variables: Any = random_variables(ResidualConv(2), x)
    assert list(variables["params"]) == [NAME]
    bare = repjax.fuse_params(variables["params"])
    whole = repjax.fuse_params(variables)
    assert set(bare) == {"kernel", "bias"}
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), bare, whole["params"]))
