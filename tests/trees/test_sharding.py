"""Trees spread over eight (simulated) devices: results lie where the kernels lay."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import repjax
from repjax.blocks import AveragePool, KxK, Norm, Pointwise, RepConv, Sequence
from tests.blocks.cases import cast, described, random_variables, same

CHAIN = Sequence(Norm(Pointwise()), KxK(3), features=24)
BLOCKS = {
    "repvgg": RepConv(8),
    "grouped": RepConv(8, groups=2),
    "depthwise": RepConv(8, groups=8),
    "chain": RepConv(8, (KxK(3), CHAIN, AveragePool(3))),
    "narrow chain": RepConv(8, (CHAIN,)),
}
AXES = {"out": -1, "in": -2}


def sharded(variables: Any, mesh: jax.sharding.Mesh, axis: int) -> Any:
    """Kernels over one axis, vectors alike; what cannot be divided is on every device."""

    def put(leaf: Any) -> jax.Array:
        names: list[str | None] = [None] * leaf.ndim
        place = axis if leaf.ndim > 1 else -1
        if leaf.shape[place] % mesh.shape["model"] == 0:
            names[place] = "model"
        return jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(*names)))

    return jax.tree.map(put, variables)


def layout(leaf: jax.Array) -> tuple[Any, ...]:
    """Names of the mesh axes by array axis, trailing ones included."""
    spec = tuple(leaf.sharding.spec)  # type: ignore[attr-defined]
    return (*spec, *(None,) * (leaf.ndim - len(spec)))


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
@pytest.mark.parametrize("name", BLOCKS)
def test_kernel_and_bias_keep_their_shardings(name: str, kind: AxisType, axis: str) -> None:
    assert jax.device_count() == 8
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(kind,) * 2)
    plain = cast(random_variables(BLOCKS[name], np.zeros((1, 5, 5, 8))), np.float32)
    variables = sharded(plain, mesh, AXES[axis])
    wanted = repjax.fuse_params(plain)["params"]
    # One input channel cannot be divided; those of the narrow chain are in no large kernel.
    divides = name not in ("depthwise", "narrow chain")
    out = axis == "out"
    kernel = (
        (None, None, None, "model") if out else (None, None, "model" if divides else None, None)
    )
    fused = repjax.fuse_params(variables)["params"]
    assert same(fused, wanted, 1e-4)
    assert layout(fused["kernel"]) == kernel
    assert layout(fused["bias"]) == ("model" if out else None,)
    assert fused["kernel"].sharding.mesh == mesh
    if kind is AxisType.Explicit:  # part of the type, so no compiler decides
        jitted = jax.jit(repjax.fuse_params)(variables)["params"]
        assert same(jitted, wanted, 1e-4)
        assert layout(jitted["kernel"]) == kernel
        assert layout(jitted["bias"]) == layout(fused["bias"])


def test_jit_on_an_automatic_mesh_does_not_gather() -> None:
    mesh = jax.make_mesh((8,), ("model",), axis_types=(AxisType.Auto,))
    plain = cast(random_variables(RepConv(8), np.zeros((1, 5, 5, 8))), np.float32)
    compiled = jax.jit(repjax.fuse_params).lower(sharded(plain, mesh, -1)).compile()
    kernel = compiled.output_shardings["params"]["kernel"]
    assert kernel.shard_shape((3, 3, 8, 8)) == (3, 3, 8, 1)
    assert "all-gather" not in compiled.as_text()


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
@pytest.mark.parametrize("axis", AXES)
def test_unfused_leaves_lie_as_those_of_like(kind: AxisType, axis: str) -> None:
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(kind,) * 2)
    plain = cast(random_variables(BLOCKS["grouped"], np.zeros((1, 5, 5, 8))), np.float32)
    like = sharded(plain, mesh, AXES[axis])
    edited = jax.tree.map(lambda leaf: leaf * 2, repjax.fuse_params(like))
    unfused = repjax.unfuse_params(edited, like)
    assert described(unfused) == described(like)
    assert jax.tree.map(layout, unfused) == jax.tree.map(layout, like)
    assert same(repjax.fuse_params(unfused), edited, 1e-4)


def test_leaves_on_one_device_stay_there() -> None:
    device = jax.devices()[3]
    plain = cast(random_variables(RepConv(4), np.zeros((1, 5, 5, 4))), np.float32)
    fused = repjax.fuse_params(jax.device_put(plain, device))
    assert {leaf.device for leaf in jax.tree.leaves(fused)} == {device}
    assert jnp.isfinite(fused["params"]["kernel"]).all()
