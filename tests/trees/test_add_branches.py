"""`add_branches`: the function stays, the way back leads to the same tree, refusals say why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import repjax
from repjax import branches as b
from repjax.branches import orepa

KEY = jax.random.key(3)
ADDED: dict[str, Callable[[int, int], tuple[b.Branch, ...]]] = {
    "residual": lambda dims, size: (b.Pointwise(), b.Identity(optional=True)),
    "copies": lambda dims, size: (b.KxK(size), b.KxK(size), b.KxK(1)),
    "asymmetric": lambda dims, size: (b.KxK((size, *(1,) * (dims - 1))),),
    "dilated": lambda dims, size: (b.KxK(3 if size > 4 else 1, dilation=2),),
    "chain": lambda dims, size: (b.Sequence(b.Pointwise(), b.KxK(size), features=8),),
    "scaled": lambda dims, size: (b.Scale(b.Pointwise()), b.Negate(b.KxK(size))),
    "pooled": lambda dims, size: (b.Sequence(b.Pointwise(), b.AveragePool(size)),),
    "separable": lambda dims, size: (b.Sequence(b.Depthwise(size, 4), b.Pointwise()),),
}


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


def close(one: Any, two: Any, tolerance: float = 1e-12) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(two)
    for a, c in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        assert a.dtype == c.dtype
        a, c = np.asarray(a, np.float64), np.asarray(c, np.float64)
        assert np.abs(a - c).max() <= tolerance * max(1, np.abs(c).max())


@pytest.mark.parametrize("name", ADDED)
@settings(max_examples=6)
@given(data=st.data())
def test_the_way_back_leads_to_the_same_tree(name: str, data: st.DataObject) -> None:
    dims, size = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 5))
    groups, per_group = data.draw(st.sampled_from([1, 2, 4])), data.draw(st.integers(1, 3))
    features = groups * data.draw(st.integers(1, 2))
    dtype, tolerance = data.draw(
        st.sampled_from([("float64", 1e-12), ("float32", 1e-5), ("bfloat16", 0.1)])
    )
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    with jax.enable_x64(True):
        module = {
            "kernel": jnp.asarray(rng.normal(size=(*(size,) * dims, per_group, features)), dtype)
        }
        if data.draw(st.booleans()):
            module["bias"] = jnp.asarray(rng.normal(size=features), dtype)
        tree = {"layers": [{"conv": module}, {"norm": {"scale": jnp.ones(3)}}]}
        added = ADDED[name](dims, size)
        wide = repjax.add_branches(tree, added, KEY, groups=groups, only="layers/0/conv".__eq__)
        ((key, node),) = wide["layers"][0]["conv"].items()
        assert key.startswith("y=")
        assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(node))
        close(repjax.fuse_params(wide), tree, tolerance)


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
    close(repjax.fuse_params(wide), variables)
    close(model.apply(repjax.fuse_params(wide), x), model.apply(variables, x))
    assert not jnp.allclose(wide["params"]["stem"]["y=conv3x3+conv1x1"]["conv1x1"]["kernel"], 0)


def test_orepa_keeps_its_masks_beside_the_parameters(x64: None) -> None:
    def added(path: str, kernel: Any) -> tuple[b.Branch, ...]:
        return (orepa(kernel.shape[0]),) if kernel.shape[0] == 3 else ()

    _, variables, wide, _ = wide_resnet(added)
    assert list(wide["params"]["stem"]) == ["y=conv3x3+orepa3x3"]
    assert set(wide) == {"params", "batch_stats", "fixed"}
    assert set(wide["fixed"]) == {"stem", *(f"Conv_{number}" for number in range(4))}
    close(repjax.fuse_params(wide), variables)
    with pytest.raises(ValueError, match="collection of their own"):
        repjax.add_branches(variables["params"], added, KEY)


def test_pure_repeatable_and_under_jit(x64: None) -> None:
    _, variables, wide, _ = wide_resnet((b.Pointwise(),))
    before = jax.tree.map(np.asarray, variables)
    jitted = jax.jit(lambda v: repjax.add_branches(v, (b.Pointwise(),), KEY))(variables)
    close(jitted, wide)
    close(variables, before, 0)
    one = repjax.add_branches(variables, (b.Pointwise(),), KEY, only="stem".__eq__)
    assert list(one["params"]["Conv_0"]) == ["kernel"]
    close(one["params"]["stem"], wide["params"]["stem"], 0)


def test_nnx_in_pure_form_and_nodes_that_are_there() -> None:
    module = nnx.Conv(4, 4, (3, 3), rngs=nnx.Rngs(0))
    tree = nnx.to_pure_dict(nnx.state(module))
    wide = repjax.add_branches({"a": tree, "b": tree}, (b.Identity(),), KEY, only="a".__eq__)
    again = repjax.add_branches(wide, (b.Identity(),), KEY)
    assert again["a"] == wide["a"]
    assert list(again["b"]) == list(wide["a"]) == ["y=conv3x3[bias]+identity"]
    close(repjax.fuse_params(again), {"a": tree, "b": tree}, 1e-6)


def test_groups_by_default_and_by_a_function() -> None:
    tree = {"deep": {"kernel": jnp.ones((3, 3, 1, 6))}, "two": {"kernel": jnp.ones((3, 3, 2, 4))}}
    optional = (b.Pointwise(), b.Identity(optional=True))
    wide = repjax.add_branches(tree, optional, KEY)
    assert [list(module) for module in wide.values()] == [
        ["y=conv3x3+conv1x1+identity"],
        ["y=conv3x3+conv1x1"],
    ]
    wide = repjax.add_branches(
        tree, optional, KEY, groups=lambda path, _: 2 if path == "two" else 1
    )
    assert [list(module) for module in wide.values()] == [
        ["y=conv3x3+conv1x1"],
        ["y=conv3x3+conv1x1+identity"],
    ]


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
def test_sharded_trees_stay_sharded(kind: AxisType) -> None:
    mesh = jax.make_mesh((8,), ("model",), axis_types=(kind,))
    place = NamedSharding(mesh, PartitionSpec(None, None, None, "model"))
    tree = {"a": {"kernel": jax.device_put(jnp.ones((3, 3, 4, 8)), place)}}
    wide = repjax.add_branches(tree, (b.Scale(b.Pointwise()), b.KxK(3)), KEY)
    for leaf in jax.tree.leaves(wide):
        assert leaf.sharding.spec[-1] == "model"
    close(repjax.fuse_params(wide), tree, 1e-5)


KERNEL = {"conv": {"kernel": np.ones((3, 3, 4, 6), np.float32)}}
REFUSED: list[tuple[Any, Any, dict[str, Any], str]] = [
    (KERNEL, (b.Norm(b.Pointwise()),), {}, "conv: norm.conv1x1. has a norm"),
    (KERNEL, (b.KxK(5),), {}, "conv: conv5x5 has taps outside the kernel, which has 3x3"),
    (KERNEL, (b.KxK(2, dilation=3),), {}, "taps outside"),
    (KERNEL, (b.AveragePool(3),), {}, "conv: average3x3 makes 4 channels of 4, expected 6"),
    (KERNEL, (b.Identity(),), {}, r"Identity\(optional=True\)"),
    (KERNEL, (b.Pointwise(bias=True),), {}, "has a bias"),
    (KERNEL, (b.KxK((3,)),), {}, "conv: "),
    (KERNEL, (b.Pointwise(),), {"groups": 4}, "groups=4 do not divide its 6"),
    (KERNEL, (b.Identity(optional=True),), {}, "no kernel to add branches to"),
    (KERNEL, (), {}, "no kernel to add branches to"),
    (KERNEL, (b.Pointwise(),), {"only": lambda path: False}, "only= names none"),
    ({"d": {"kernel": np.ones((3, 4))}}, (b.Pointwise(),), {}, r"d/kernel \(3, 4\)"),
    ({"d": {"kernel": np.ones((3, 4, 4))}}, (b.Pointwise(),), {}, "rank 3 must be named"),
    (
        {"c": {"kernel": np.ones((3, 3, 4, 4), int)}},
        (b.Pointwise(),),
        {},
        "c: its kernel has",
    ),
    (
        {"c": {"kernel": np.ones((2, 3, 3, 4, 4)), "bias": np.ones((2, 4))}},
        (b.Pointwise(),),
        {},
        "vmap",
    ),
]


@pytest.mark.parametrize(("tree", "added", "options", "words"), REFUSED)
def test_refusals_name_the_path(tree: Any, added: Any, options: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        repjax.add_branches(tree, added, KEY, **options)


def test_other_types_are_refused() -> None:
    for added in (b.Pointwise(), [3], None, lambda path, kernel: b.Pointwise()):
        with pytest.raises(TypeError, match="tuple of descriptions"):
            repjax.add_branches(KERNEL, added, KEY)  # type: ignore[arg-type]


ONLINE = ["residual", "copies", "chain", "scaled", "pooled", "separable"]


@pytest.mark.parametrize("name", ONLINE)
def test_training_through_the_fold_is_training_the_branches(name: str, x64: None) -> None:
    added = ADDED[name](2, 3)
    rng = np.random.default_rng(1)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 4, 4)) / 6)
    wide = repjax.add_branches({"kernel": kernel}, added, KEY)
    native = repjax.blocks.RepConv(4, (b.KxK(3), *added), norm=None, use_bias=False)
    x = jnp.asarray(rng.normal(size=(2, 6, 5, 4)))
    plain = nn.Conv(4, (3, 3), use_bias=False)

    def loss(apply: Any, tree: Any) -> Any:
        return jnp.mean(jnp.sin(apply(tree)) ** 2)

    def step(apply: Any, optimizer: Any, tree: Any, state: Any) -> Any:
        gradient = jax.grad(lambda tree: loss(apply, tree))(tree)
        change, state = optimizer.update(gradient, state, tree)
        return optax.apply_updates(tree, change), state, gradient

    forms = {
        "native": lambda tree: native.apply({"params": tree}, x),
        "online": lambda tree: plain.apply({"params": repjax.fuse_params(tree)}, x),
    }
    optimizer = optax.sgd(0.05, momentum=0.9)
    trees = dict.fromkeys(forms, wide)
    states = {form: optimizer.init(wide) for form in forms}
    steps = {
        form: jax.jit(lambda t, s, apply=apply: step(apply, optimizer, t, s))
        for form, apply in forms.items()
    }
    for number in range(20):
        gradients = {}
        for form in forms:
            trees[form], states[form], gradients[form] = steps[form](trees[form], states[form])
        if number == 0:
            close(gradients["online"], gradients["native"], 1e-10)
    close(trees["online"], trees["native"], 1e-10)
    close(forms["online"](trees["online"]), forms["native"](trees["online"]))

    def count(apply: Any, tree: Any) -> int:
        grad = jax.value_and_grad(lambda tree: loss(apply, tree))
        return int(repjax.count_operations(grad, tree)["conv_general_dilated"])

    one = count(lambda tree: plain.apply({"params": tree}, x), {"kernel": kernel})
    assert count(forms["online"], wide) == one < count(forms["native"], wide)
