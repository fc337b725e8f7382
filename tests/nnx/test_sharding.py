"""Sharded models: arrays and the metadata of their variables stay with the axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, PartitionSpec

import repjax.nnx
from repjax import blocks
from repjax.branches import Pointwise, Scale

NAMES = (None, None, None, "model")
INIT = nn.initializers.lecun_normal()
ONES = np.ones((1, 6, 6, 4), np.float32)
MODELS: dict[str, Callable[[], nnx.Module]] = {
    "nnx": lambda: repjax.nnx.RepVGGBlock(
        4,
        8,
        kernel_init=nnx.with_partitioning(INIT, NAMES),
        use_running_average=True,
        rngs=nnx.Rngs(0),
    ),
    "bridge": lambda: nnx.bridge.ToNNX(
        blocks.RepVGGBlock(8, kernel_init=nn.with_partitioning(INIT, NAMES)), rngs=nnx.Rngs(0)
    ).lazy_init(ONES),
}


def variables(model: nnx.Module) -> dict[str, Any]:
    """The variables of the one convolution."""
    return {path[-1]: leaf for path, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param))}


@pytest.mark.parametrize("name", MODELS)
def test_the_fused_kernel_has_the_mesh_axes_of_the_large_one(name: str) -> None:
    mesh = jax.make_mesh((4,), ("model",), axis_types=(AxisType.Auto,))
    wanted = {"bias": PartitionSpec("model"), "kernel": PartitionSpec(*NAMES)}
    with jax.set_mesh(mesh):
        model = MODELS[name]()
        deployed = repjax.nnx.deploy(model)
        abstract = repjax.nnx.deploy(nnx.eval_shape(MODELS[name]))
        for one in (deployed, abstract):
            assert variables(one).keys() == wanted.keys()
            specs = nnx.get_partition_spec(nnx.state(one, nnx.Param))
            assert {path[-1]: leaf for path, leaf in nnx.to_flat_state(specs)} == wanted
        found = {key: leaf.sharding.spec for key, leaf in variables(deployed).items()}
        assert found == wanted
        assert jnp.allclose(deployed(ONES), model(ONES), atol=1e-5)


def test_added_branches_are_like_the_kernel_beside_them() -> None:
    class Frozen(nnx.Param[Any]):
        """A kind of the user's own."""

    mesh = jax.make_mesh((4,), ("model",), axis_types=(AxisType.Auto,))
    with jax.set_mesh(mesh):
        kernel = Frozen(jnp.ones((3, 3, 4, 8)), out_sharding=NAMES, mine="kept")
    state = nnx.State({"kernel": kernel, "bias": nnx.Param(jnp.ones(8))})
    wide = repjax.add_branches(state, (Scale(Pointwise()),), jax.random.key(0))
    (node,) = wide.values()
    for leaf, names in (
        (node["conv3x3"]["kernel"], NAMES),
        (node["conv1x1"]["kernel"], NAMES),
        (node["conv1x1"]["scale"], ("model",)),
    ):
        assert type(leaf) is Frozen
        assert leaf.get_metadata()["mine"] == "kept"
        assert leaf.get_metadata()["out_sharding"] == names
    assert type(node["conv3x3"]["bias"]) is nnx.Param
    assert "out_sharding" not in node["conv3x3"]["bias"].get_metadata()
    back = repjax.fuse_params(wide)
    assert type(back["kernel"]) is Frozen
    assert back["kernel"].get_metadata() == kernel.get_metadata()
