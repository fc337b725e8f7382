"""Fused parameters are plain nested dicts: saved, read back, they run the fused program."""

from __future__ import annotations

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import repjax
from repjax.blocks import RepVGGBlock
from tests.tracing.checks import image, random_like

orbax = pytest.importorskip("orbax.checkpoint")
safetensors = pytest.importorskip("safetensors.numpy")

pytestmark = [
    pytest.mark.usefixtures("x64"),
    pytest.mark.filterwarnings("ignore:.*[Ss]harding.*:UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def fused_and_image():
    with jax.enable_x64(True):
        block, x = RepVGGBlock(4), image(1, 7, 7, 4)
        variables = random_like(jax.eval_shape(block.init, jax.random.key(0), x))
        yield repjax.fuse(block.apply, variables, x), x


def test_by_orbax(fused_and_image, tmp_path):
    fused, x = fused_and_image
    with orbax.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "fused", fused.params)
        checkpointer.wait_until_finished()
        params = checkpointer.restore(
            tmp_path / "fused", jax.tree.map(jnp.zeros_like, fused.params)
        )
    np.testing.assert_array_equal(fused.apply(params, x), fused.apply(fused.params, x))


def test_by_safetensors_under_the_names_of_modules(fused_and_image, tmp_path):
    fused, x = fused_and_image
    flat = flax.traverse_util.flatten_dict(fused.params, sep="/")
    assert sorted(flat) == ["conv/bias", "conv/kernel"]
    arrays = {name: np.asarray(leaf) for name, leaf in flat.items()}
    safetensors.save_file(arrays, tmp_path / "fused.safetensors")
    read = safetensors.load_file(tmp_path / "fused.safetensors")
    params = flax.traverse_util.unflatten_dict(read, sep="/")
    np.testing.assert_array_equal(fused.apply(params, x), fused.apply(fused.params, x))
