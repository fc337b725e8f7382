"""`add_branches` on networks that were not written for this library."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import repjax
from repjax import branches as b
from repjax.branches import orepa
from tests.training.kernels import KEY, alike

Module = dict[str, Any]


class ResNet(nn.Module):
    """A residual network in the style of Flax's examples, not written for this library."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = nn.Conv(8, (3, 3), use_bias=False, name="stem")(x)
        for number, features in enumerate((8, 12)):
            y = nn.Conv(features, (3, 3), strides=1 + number, use_bias=False)(x)
            y = nn.relu(nn.BatchNorm(use_running_average=not train)(y))
            y = nn.Conv(features, (3, 3))(y)
            if x.shape != y.shape:
                x = nn.Conv(features, (1, 1), strides=2, name=f"proj{number}")(x)
            x = nn.relu(x + y)
        return nn.Dense(10)(x.mean((1, 2)))


def wide_resnet(added: Any) -> tuple[ResNet, Any, Any, jax.Array]:
    model, x = ResNet(), jax.random.normal(KEY, (2, 9, 9, 3), jnp.float64)
    variables = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), model.init(KEY, x))
    return model, variables, repjax.add_branches(variables, added, KEY), x


def test_a_network_of_other_people_computes_the_same(x64: None) -> None:
    model, variables, wide, x = wide_resnet((b.Pointwise(), b.Identity(optional=True)))
    assert list(wide["params"]["stem"]) == ["y=conv3x3+conv1x1"]
    assert list(wide["params"]["Conv_1"]) == ["y=conv3x3[bias]+conv1x1+identity"]
    assert list(wide["params"]["proj1"]) == ["y=conv1x1[bias]+conv1x1"]
    assert wide["params"]["Dense_0"] == variables["params"]["Dense_0"]
    assert wide["batch_stats"]["BatchNorm_0"] == variables["batch_stats"]["BatchNorm_0"]
    alike(repjax.fuse_params(wide), variables)
    alike(model.apply(repjax.fuse_params(wide), x), model.apply(variables, x))
    assert not jnp.allclose(wide["params"]["stem"]["y=conv3x3+conv1x1"]["conv1x1"]["kernel"], 0)


def test_orepa_keeps_its_masks_beside_the_parameters(x64: None) -> None:
    def added(path: str, kernel: Any) -> tuple[b.Branch, ...]:
        return (orepa(kernel.shape[0]),) if kernel.shape[0] == 3 else ()

    _, variables, wide, _ = wide_resnet(added)
    assert list(wide["params"]["stem"]) == ["y=conv3x3+orepa3x3"]
    assert set(wide) == {"params", "batch_stats", "fixed"}
    assert set(wide["fixed"]) == {"stem", *(f"Conv_{number}" for number in range(4))}
    alike(repjax.fuse_params(wide), variables)
    with pytest.raises(ValueError, match="collection of their own"):
        repjax.add_branches(variables["params"], added, KEY)


def test_pure_repeatable_and_under_jit(x64: None) -> None:
    _, variables, wide, _ = wide_resnet((b.Pointwise(),))
    before = jax.tree.map(np.asarray, variables)
    jitted = jax.jit(lambda v: repjax.add_branches(v, (b.Pointwise(),), KEY))(variables)
    alike(jitted, wide)
    alike(variables, before, 0)
    one = repjax.add_branches(variables, (b.Pointwise(),), KEY, only="stem".__eq__)
    assert list(one["params"]["Conv_0"]) == ["kernel"]
    alike(one["params"]["stem"], wide["params"]["stem"], 0)


def test_nnx_in_pure_form_and_nodes_that_are_there() -> None:
    module = nnx.Conv(4, 4, (3, 3), rngs=nnx.Rngs(0))
    tree = nnx.to_pure_dict(nnx.state(module))
    wide = repjax.add_branches({"a": tree, "b": tree}, (b.Identity(),), KEY, only="a".__eq__)
    again = repjax.add_branches(wide, (b.Identity(),), KEY)
    assert again["a"] == wide["a"]
    assert list(again["b"]) == list(wide["a"]) == ["y=conv3x3[bias]+identity"]
    alike(repjax.fuse_params(again), {"a": tree, "b": tree}, 1e-6)


def test_weights_of_equinox_as_a_dict(x64: None) -> None:
    keys = jax.random.split(KEY, 2)
    modules = [
        eqx.nn.Conv2d(3, 4, 3, key=keys[0], padding=1, dtype=jnp.float64),
        eqx.nn.Conv3d(4, 4, 3, key=keys[1], padding=1, groups=2, dtype=jnp.float64),
    ]

    def kernel(module: Any) -> Module:
        weight = jnp.moveaxis(module.weight, (0, 1), (-1, -2))
        return {"kernel": weight, "bias": module.bias.reshape(-1)}

    def run(tree: Any, x: jax.Array) -> jax.Array:
        for number, (module, own) in enumerate(zip(modules, tree["layers"], strict=True)):
            weight = jnp.moveaxis(own["kernel"], (-1, -2), (0, 1))
            arrays = weight, own["bias"].reshape(module.bias.shape)
            module = eqx.tree_at(lambda m: (m.weight, m.bias), module, arrays)
            x = module(x) if number == 0 else module(jnp.stack([x, x], 1)).sum(1)
        return x

    tree = {"layers": tuple(kernel(module) for module in modules)}
    wide = repjax.add_branches(
        tree,
        (b.Pointwise(), b.Identity(optional=True)),
        KEY,
        groups=lambda path, kernel: 4 // kernel.shape[-2] if kernel.ndim == 5 else 1,
    )
    assert [list(module) for module in wide["layers"]] == [
        ["y=conv3x3[bias]+conv1x1"],
        ["y=conv3x3x3[bias]+conv1x1x1+identity"],
    ]
    x = jax.random.normal(KEY, (3, 6, 5), jnp.float64)
    alike(run(repjax.fuse_params(wide), x), run(tree, x))
    with pytest.raises(TypeError, match=r"is a Conv2d; expected a nested dict"):
        repjax.add_branches(modules[0], (b.Pointwise(),), KEY)
    with pytest.raises(ValueError, match=r"`kernel` of shape \(spatial"):
        repjax.add_branches({"a": {"weight": jnp.ones((4, 3, 3, 3))}}, (b.Pointwise(),), KEY)
