"""`fuse_params` on a whole network: what is fused, what is not touched, what comes out."""

from __future__ import annotations

import copy
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import repjax
from repjax.blocks import KxK, RepConv
from tests.blocks.cases import cast, convolutions, described, identical, largest, same
from tests.evaluate import evaluated
from tests.trees.networks import IMAGES, PATHS, Network, at, paths_of


@pytest.mark.usefixtures("x64")
def test_the_network_computes_the_same(exact: Any) -> None:
    @evaluated
    def run(variables: Any, x: Any) -> Any:
        deployed = Network().deploy().apply(repjax.fuse_params(variables), x)
        return Network().apply(variables, x), deployed

    native, deployed = run(exact, IMAGES)
    assert largest(native - deployed) <= 1e-12 * largest(native)


def test_contract_of_the_deploy_twin(variables: Any) -> None:
    x = jnp.asarray(IMAGES, jnp.float32)
    promised = jax.eval_shape(Network().deploy().init, jax.random.key(0), x)
    fused = repjax.fuse_params(variables)
    assert described(fused) == described(promised)
    assert paths_of(fused["batch_stats"]) == {"stem_norm/mean", "stem_norm/var"}
    assert convolutions(Network().apply, variables, x) == 1 + 2 + 3 + 3 + 2
    assert convolutions(Network().deploy().apply, fused, x) == 1 + 4


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_the_type_of_each_kernel_is_kept(exact: Any, dtype: Any, strict: None) -> None:
    variables = cast(exact, np.float32)
    variables["params"]["chain"] = cast(variables["params"]["chain"], dtype)
    fused = repjax.fuse_params(variables)["params"]
    assert {leaf.dtype for leaf in jax.tree.leaves(fused["chain"])} == {jnp.dtype(dtype)}
    assert {leaf.dtype for leaf in jax.tree.leaves(fused["stage"])} == {jnp.dtype(np.float32)}
    # The fold runs in float32 and is rounded once.
    precise = repjax.fuse_params({**variables, "params": cast(variables["params"], np.float32)})[
        "params"
    ]["chain"]
    rounded = jax.tree.map(lambda leaf: leaf.astype(dtype), precise)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), fused["chain"], rounded))


def test_numpy_leaves_of_float64_need_no_x64(exact: Any, variables: Any) -> None:
    fused = repjax.fuse_params(exact)
    assert at(fused["params"], "chain")["kernel"].dtype == jnp.float32
    assert same(fused["params"]["chain"], repjax.fuse_params(variables)["params"]["chain"], 1e-5)


def test_what_is_not_a_block_is_the_same_object(variables: Any) -> None:
    more = {**variables, "step": jnp.zeros(()), "cache": {}}
    fused = repjax.fuse_params(more)
    for name in ("stem", "stem_norm", "head"):
        assert identical(fused["params"][name], variables["params"][name])
    assert identical(fused["batch_stats"]["stem_norm"], variables["batch_stats"]["stem_norm"])
    assert fused["step"] is more["step"]
    assert fused["cache"] == {}


def test_containers_are_never_shared_with_the_input(variables: Any) -> None:
    deployed = repjax.fuse_params(variables)
    extra = {"layers": [{"kernel": 1}], "pair": ({"bias": 2},), "cache": {}}
    state = optax.TraceState({"head": jnp.ones(1)})
    given = {**variables, "more": extra, "state": state}
    results = {
        "fused": (repjax.fuse_params(given), given),
        "left alone": (repjax.fuse_params(given, only=lambda path: False), given),
        "deployed": (repjax.fuse_params(deployed), deployed),
        "unfused": (repjax.unfuse_params(deployed, variables), variables),
        "unfused of deployed": (repjax.unfuse_params(deployed, variables), deployed),
    }
    for result, tree in results.values():
        assert not containers(result) & containers(tree)
    assert results["left alone"][0]["state"].trace["head"] is state.trace["head"]


def containers(tree: Any) -> set[int]:
    """Identities of all containers that could be changed in place."""
    own = {id(tree)} if isinstance(tree, dict | list) else set()
    below = tree.values() if isinstance(tree, dict) else tree
    inside = below if isinstance(tree, dict | list | tuple) else ()
    return own.union(*map(containers, inside))


def test_inputs_are_not_changed(variables: Any) -> None:
    containers = copy.deepcopy(jax.tree.map(id, variables))
    repjax.unfuse_params(repjax.fuse_params(variables), variables)
    assert jax.tree.map(id, variables) == containers


def test_a_deploy_tree_stays_as_it_is(variables: Any) -> None:
    fused = repjax.fuse_params(variables)
    again = repjax.fuse_params(fused)
    assert identical(again, fused)
    bare = fused["params"]
    again = repjax.fuse_params(bare)
    assert identical(again, bare)


def test_only_fuses_what_it_is_asked_to(variables: Any) -> None:
    seen = []

    def only(path: str) -> bool:
        seen.append(path)
        return path.startswith("stage")

    partly = repjax.fuse_params(variables, only=only)
    assert sorted(seen) == sorted(PATHS)
    assert set(at(partly["params"], "stage/narrowing")) == {"kernel", "bias"}
    assert identical(partly["params"]["chain"], variables["params"]["chain"])
    assert identical(partly["params"]["residual"], variables["params"]["residual"])
    assert set(partly["batch_stats"]) == {"stem_norm", "chain"}
    whole, direct = repjax.fuse_params(partly), repjax.fuse_params(variables)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), whole, direct))


@pytest.mark.usefixtures("x64")
def test_each_block_has_the_epsilon_of_its_name(exact: Any) -> None:
    """By hand: with kernels of one tap, factor and bias are those of batch norm."""
    node = "y=norm[epsilon=1e-3](conv1x1)+norm(conv1x1)"
    rng = np.random.default_rng(0)

    def branch() -> tuple[Any, Any]:
        kernel = rng.normal(size=(1, 1, 2, 3))
        norm = {"scale": rng.normal(size=3), "bias": rng.normal(size=3)}
        stats = {"mean": rng.normal(size=3), "var": rng.random(3) * 1e-3}
        return {"kernel": kernel, "norm": norm}, {"norm": stats}

    names = ["conv1x1_0", "conv1x1_1"]
    branches = {name: branch() for name in names}
    variables = {
        "params": {node: {name: params for name, (params, _) in branches.items()}},
        "batch_stats": {node: {name: stats for name, (_, stats) in branches.items()}},
    }
    fused = repjax.fuse_params(variables)["params"]
    kernel, bias = 0, 0
    for (params, stats), epsilon in zip(branches.values(), [1e-3, 1e-5], strict=True):
        norm = {**params["norm"], **stats["norm"]}
        factor = norm["scale"] / np.sqrt(norm["var"] + epsilon)
        kernel = kernel + params["kernel"] * factor
        bias = bias + norm["bias"] - norm["mean"] * factor
    assert largest(fused["kernel"] - kernel) <= 1e-12 * largest(kernel)
    assert largest(fused["bias"] - bias) <= 1e-12 * largest(bias)


def test_a_block_inside_the_module_of_a_block(variables: Any) -> None:
    """A module of the user may hold a block's node and, deeper, other blocks."""
    residual = variables["params"]["residual"]
    nested = {"params": {**residual, "deeper": residual}}
    fused = repjax.fuse_params(nested)["params"]
    assert set(fused) == {"kernel", "bias", "deeper"}
    assert bool((fused["deeper"]["kernel"] == fused["kernel"]).all())


def test_a_block_at_the_root_beside_other_collections() -> None:
    block, x = RepConv(4), jnp.ones((1, 5, 5, 4))
    shapes = jax.eval_shape(block.init, jax.random.key(0), x)
    variables = {**jax.tree.map(lambda a: jnp.ones(a.shape), shapes), "step": 3, "cache": {}}
    fused = repjax.fuse_params(variables)
    assert set(fused) == {"params", "step", "cache"}
    assert identical(repjax.fuse_params(fused)["params"], fused["params"])


def test_groups_are_read_from_the_shapes() -> None:
    for groups in (1, 2, 4, 8):
        block = RepConv(8, groups=groups)
        x = jax.ShapeDtypeStruct((1, 5, 5, 8), jnp.float32)
        variables = jax.eval_shape(block.init, jax.random.key(0), x)
        fused = jax.eval_shape(repjax.fuse_params, variables)
        assert fused["params"]["kernel"].shape == (3, 3, 8 // groups, 8)
    wide = RepConv(8, (KxK(3),), norm=None, groups=4)
    x = jax.ShapeDtypeStruct((1, 5, 5, 12), jnp.float32)
    variables = jax.eval_shape(wide.init, jax.random.key(0), x)
    assert jax.eval_shape(repjax.fuse_params, variables)["params"]["kernel"].shape == (3, 3, 3, 8)
