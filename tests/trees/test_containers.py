"""The same door for frozen, boxed, stacked and NNX trees."""

from __future__ import annotations

from typing import Any

import flax.core
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import repjax
from repjax.blocks import RepConv, ResidualConv
from tests.blocks.cases import cast, largest, random_tree, random_variables, same
from tests.evaluate import evaluated
from tests.trees.networks import REPVGG

X = np.random.default_rng(0).normal(size=(2, 6, 7, 4)).astype(np.float32)


def test_frozen_dicts_come_out_as_dicts(variables: Any) -> None:
    wanted = repjax.fuse_params(variables)
    frozen = flax.core.freeze(variables)
    found = repjax.fuse_params(frozen)
    assert type(found) is type(found["params"]) is type(found["params"]["stage"]) is dict
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), found, wanted))
    back = repjax.unfuse_params(flax.core.freeze(wanted), frozen)
    assert jax.tree.structure(back) == jax.tree.structure(variables)
    assert isinstance(frozen, flax.core.FrozenDict)


def test_boxed_leaves_come_out_plain() -> None:
    init = nn.with_partitioning(nn.initializers.lecun_normal(), (None, None, None, "model"))
    block = RepConv(4, kernel_init=init)
    variables = evaluated(lambda x: block.init(jax.random.key(0), x))(X)
    node = variables["params"][REPVGG]
    assert isinstance(node["conv3x3"]["kernel"], nn.Partitioned)
    fused = repjax.fuse_params(variables)
    assert all(isinstance(leaf, jax.Array) for leaf in fused["params"].values())
    wanted = repjax.fuse_params(nn.meta.unbox(variables))
    assert same(fused, wanted, 0)
    assert same(repjax.fuse_params(repjax.unfuse_params(fused, variables)), wanted, 1e-5)


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, _: Any) -> tuple[jax.Array, None]:
        return nn.relu(RepConv(4, name="block")(x)), None


class Scanned(nn.Module):
    """Three blocks, their variables stacked on a leading axis."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        axes = {"params": 0, "batch_stats": 0}
        scan = nn.scan(Layer, variable_axes=axes, split_rngs={"params": True}, length=3)
        y, _ = scan(name="layers")(x, None)
        return y


def test_a_stack_is_refused_with_a_hint_and_fused_by_vmap() -> None:
    shapes = jax.eval_shape(Scanned().init, jax.random.key(0), X)
    variables = cast(random_tree(shapes), np.float32)
    words = r"layers/block/y=.*leading axis \[3\].*use jax\.vmap\(repjax\.fuse_params\)"
    with pytest.raises(repjax.MalformedTreeError, match=words) as caught:
        repjax.fuse_params(variables)
    assert "1 problem in the tree" in str(caught.value)
    fused = jax.vmap(repjax.fuse_params)(variables)
    block = fused["params"]["layers"]["block"]
    assert jax.tree.map(jnp.shape, block) == {"bias": (3, 4), "kernel": (3, 3, 3, 4, 4)}

    def layer(x: jax.Array, leaves: Any) -> tuple[jax.Array, None]:
        return nn.relu(RepConv(4, deployed=True).apply({"params": leaves}, x)), None

    native = evaluated(Scanned().apply)(variables, X)
    deployed, _ = evaluated(lambda x, block: jax.lax.scan(layer, x, block))(X, block)
    assert largest(native - deployed) <= 1e-4 * largest(native)


class NormedConv(nnx.Conv):
    """A branch by the convention: its norm is the node `norm` beside its kernel."""

    def __init__(self, channels: int, size: int, rngs: nnx.Rngs) -> None:
        super().__init__(channels, channels, (size, size), use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(channels, use_running_average=True, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.norm(super().__call__(x))


class NormedIdentity(nnx.Module):
    def __init__(self, channels: int, rngs: nnx.Rngs) -> None:
        self.norm = nnx.BatchNorm(channels, use_running_average=True, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.norm(x)


class Branches(nnx.Module):
    def __init__(self, channels: int, rngs: nnx.Rngs) -> None:
        self.conv3x3 = NormedConv(channels, 3, rngs)
        self.conv1x1 = NormedConv(channels, 1, rngs)
        self.identity = NormedIdentity(channels, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.conv3x3(x) + self.conv1x1(x) + self.identity(x)


class NNXBlock(nnx.Module):
    """A RepVGG block of the user's own: nothing of repjax but the name of the node."""

    def __init__(self, channels: int, rngs: nnx.Rngs) -> None:
        setattr(self, REPVGG, Branches(channels, rngs))

    def __call__(self, x: jax.Array) -> jax.Array:
        return nnx.relu(getattr(self, REPVGG)(x))


class NNXNetwork(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.blocks = nnx.List([NNXBlock(4, rngs) for _ in range(2)])
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((1, 2)))


def test_an_nnx_state_goes_through_the_same_door() -> None:
    network = NNXNetwork(nnx.Rngs(0))
    graph, state = nnx.split(network)
    pure = cast(random_tree(nnx.to_pure_dict(state)), np.float32)
    assert set(pure["blocks"]) == {0, 1}
    assert set(pure["blocks"][0][REPVGG]["conv1x1"]["norm"]) == {"scale", "bias", "mean", "var"}

    fused = repjax.fuse_params(pure)
    assert set(fused["blocks"]) == {0, 1}
    assert set(fused["blocks"][1]) == {"kernel", "bias"}
    assert fused["head"]["kernel"] is pure["head"]["kernel"]

    @evaluated
    def native(pure: Any, x: Any) -> Any:
        return nnx.merge(graph, pure)(x)

    @evaluated
    def deployed(fused: Any, x: Any) -> Any:
        conv = RepConv(4, deployed=True)
        for number in (0, 1):
            x = nnx.relu(conv.apply({"params": fused["blocks"][number]}, x))
        return x.mean((1, 2)) @ fused["head"]["kernel"] + fused["head"]["bias"]

    boxed = jax.tree.map(lambda leaf: leaf.astype(np.float32), state)
    assert same(
        nnx.to_pure_dict(repjax.fuse_params(boxed)), repjax.fuse_params(nnx.to_pure_dict(boxed)), 0
    )

    wanted = native(pure, X)
    assert largest(deployed(fused, X) - wanted) <= 1e-4 * largest(wanted)
    edited = jax.tree.map(lambda leaf: leaf * 1.5, fused)
    back = repjax.unfuse_params(edited, pure)
    assert jax.tree.structure(back) == jax.tree.structure(pure)
    wanted = deployed(edited, X)
    assert largest(native(back, X) - wanted) <= 1e-4 * largest(wanted)
    del pure["blocks"][1][REPVGG]["conv1x1"]["norm"]["mean"]
    with pytest.raises(repjax.MalformedTreeError, match=r"blocks/1/y=.*conv1x1/norm/mean: missing"):
        repjax.fuse_params(pure)


def test_blocks_inside_lists_and_tuples_are_fused() -> None:
    one, two = (cast(random_variables(RepConv(4), X, seed), np.float32) for seed in (0, 1))
    plain = {"kernel": jnp.ones(1)}
    variables = {
        "params": {"layers": [one["params"], plain], "pair": ({"block": two["params"]}, 3)},
        "batch_stats": {"layers": [one["batch_stats"]], "pair": ({"block": two["batch_stats"]},)},
    }
    fused = repjax.fuse_params(variables)
    assert list(fused) == ["params"]
    layers, pair = fused["params"]["layers"], fused["params"]["pair"]
    assert (type(layers), type(pair)) == (list, tuple)
    assert same(layers[0], repjax.fuse_params(one)["params"], 0)
    assert layers[1]["kernel"] is plain["kernel"]
    assert same(pair[0]["block"], repjax.fuse_params(two)["params"], 0)
    seen: list[str] = []
    repjax.fuse_params(variables, only=lambda path: bool(seen.append(path)))
    assert seen == ["layers/0", "pair/0/block"]
    back = repjax.unfuse_params(fused, variables)
    assert jax.tree.structure(back) == jax.tree.structure(variables)
    assert same(repjax.fuse_params(back), fused, 1e-4)


def test_what_stays_in_a_list_keeps_its_place() -> None:
    one = cast(random_variables(RepConv(4), X), np.float32)
    stats = {"mean": jnp.ones(1)}
    variables = {
        "params": {"layers": [one["params"], {}]},
        "batch_stats": {"layers": [one["batch_stats"], stats]},
    }
    assert repjax.fuse_params(variables)["batch_stats"] == {"layers": [{}, stats]}


def test_blocks_without_a_norm_need_no_collections() -> None:
    variables = random_variables(ResidualConv(4), X)
    fused = repjax.fuse_params({"layers": [0], "block": variables["params"]})
    assert set(fused["block"]) == {"kernel", "bias"}
    assert fused["layers"] == [0]
