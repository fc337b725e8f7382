"""What fusing costs and what it hands on: plans that are kept, leaves, shardings, texts."""

from __future__ import annotations

import contextlib
import cProfile
import functools
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as Spec

import repjax
from tests.tracing.checks import error, gap, image, is_float, named_leaves, random_like
from tests.tracing.parts import conv, norm, relu, weights

pytestmark = pytest.mark.usefixtures("x64")

C = 8
W = weights(
    a=(3, 3, C, C), one=(1, 1, C, C), norm=C, head=(C, 4), top=(4,), table=(5, C),
)  # fmt: skip
X = functools.partial(image, 1, 6, 6, C)


def network(w, x):
    y = relu(norm(w, conv(x, w["a"])) + conv(x, w["one"]) + x)
    return relu(y.mean((1, 2))) @ w["head"] + w["top"], w["table"]


KEPT = 16


def test_the_last_plans_are_kept():
    traces = []

    def apply(w, x):
        traces.append(x.shape)
        return jnp.tanh(x @ w["head"] + w["top"])

    fused = repjax.fuse(apply, W, image(1, C))

    def plan(size):
        spec = jax.ShapeDtypeStruct((size, C), jnp.float64)
        jax.eval_shape(fused.apply, fused.params, spec)

    sizes = range(2, 42)
    for size in sizes:
        plan(size)
    traces.clear()
    for size in reversed(sizes[-KEPT // 2 :]):  # what came last is there without a trace
        plan(size)
    assert not traces


def test_older_plans_are_dropped_and_made_again():
    traces = []

    def apply(w, x):
        traces.append(x.shape)
        return relu(conv(x, w["a"]))

    fused = repjax.fuse(apply, W, X())
    sizes = range(3, 43)

    def plan_all():
        traces.clear()
        for size in sizes:
            spec = jax.ShapeDtypeStruct((1, size, 6, C), jnp.float64)
            jax.eval_shape(fused.apply, fused.params, spec)
        return len(traces)

    assert plan_all() >= len(sizes) - 1
    assert plan_all() >= len(sizes) - KEPT - 1  # at most 16, and the first, were still there
    assert gap(apply, W, fused, X()) <= 1e-12


def linear(w, x):
    for k, *rest in w:
        x = norm({"norm": rest}, conv(x, k))
    return x


def branched(w, x):
    for k, *rest in w:
        x = norm({"norm": rest}, conv(x, k)) + 3.0 * x
    return x


@pytest.mark.parametrize("program", [linear, branched])
def test_planning_is_nearly_linear_in_a_chain_without_non_linearities(program):
    def calls(length):
        shapes = [((1, 1, C, C), *[(C,)] * 4)] * length
        w = [tuple(jax.ShapeDtypeStruct(one, jnp.float64) for one in all) for all in shapes]
        profile = cProfile.Profile()
        fused = profile.runcall(repjax.fuse, program, w, X())
        assert fused.report.totals.kernels["conv"] == 1
        return sum(entry.callcount for entry in profile.getstats())

    calls(2)
    # six times as long: a square law would take 36 times as many
    assert calls(48) < 8 * calls(8)


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
def test_leaves_that_pass_through_are_the_same_objects(kind):
    w = {"trunk": {"kernel": kind(W["head"]), "bias": kind(W["top"])}, "table": kind(W["table"])}

    def apply(w, x):
        return jnp.tanh(jnp.tanh(x) @ w["trunk"]["kernel"]) * w["trunk"]["bias"], w["table"]

    def network(w, x):
        return jnp.sin(jnp.exp(x) @ w["trunk"]["kernel"]), w["table"]

    for function in (apply, network):
        fused = repjax.fuse(function, w, image(2, C))
        assert fused.params["trunk"]["kernel"] is w["trunk"]["kernel"]
        assert fused.params["table"] is w["table"]
        again = fused.fuse_params(w)
        assert again["trunk"]["kernel"] is w["trunk"]["kernel"]
        assert again["table"] is w["table"]


def head(w, x):
    return jnp.tanh(x) @ w["head"]["kernel"] + w["head"]["bias"]


def test_containers_are_new():
    w = {"head": {"kernel": image(C, 4), "bias": image(4)}}
    fused = repjax.fuse(head, w, image(2, C))
    again = fused.fuse_params(w)
    assert fused.params is not again
    assert fused.params["head"] is not w["head"]
    assert fused.params["head"] is not again["head"]
    fused.params["head"]["kernel"] = None
    assert w["head"]["kernel"] is not None
    assert again["head"]["kernel"] is not None


def test_copies_may_be_donated():
    w, x = {"head": {"kernel": image(C, 4), "bias": image(4)}}, image(2, C)
    fused = repjax.fuse(head, w, x)
    copies = jax.tree.map(jnp.copy, fused.params)
    step = jax.jit(lambda params: jax.tree.map(lambda leaf: leaf - 1, params), donate_argnums=0)
    step(copies)
    assert gap(head, w, fused, x) <= 1e-12


def mesh():
    return jax.make_mesh((2, 4), ("data", "model"), axis_types=(AxisType.Auto,) * 2)


def placed(leaf):
    """The last axis is divided among the four devices of 'model'."""
    spec = (None,) * (leaf.ndim - 1) + ("model",)
    return jax.device_put(leaf, NamedSharding(mesh(), Spec(*spec)))


CONTEXTS = {
    "no context": contextlib.nullcontext,
    "set_mesh": lambda: jax.set_mesh(mesh()),
    "jit under set_mesh": lambda: jax.set_mesh(mesh()),
}


@pytest.mark.parametrize("context", CONTEXTS)
def test_shardings_carry_over(context):
    variables = jax.tree.map(lambda leaf: placed(jnp.asarray(leaf)), W)
    with CONTEXTS[context]():
        fused = repjax.fuse(network, variables, X())
        params = fused.params
        if context.startswith("jit"):
            params = jax.jit(fused.fuse_params)(variables)
        found = jax.jit(fused.apply)(fused.params, X())
    for path, leaf in named_leaves(params):
        expected = NamedSharding(mesh(), Spec(*(None,) * (leaf.ndim - 1), "model"))
        assert leaf.sharding.is_equivalent_to(expected, leaf.ndim), path
    assert error(network(W, X()), found) <= 1e-12


def test_replicated_variables_stay_on_their_devices():
    everywhere = NamedSharding(mesh(), Spec())
    variables = jax.device_put(jax.tree.map(jnp.asarray, W), everywhere)
    fused = repjax.fuse(network, variables, X())
    for path, leaf in named_leaves(fused.params):
        assert leaf.sharding.is_equivalent_to(everywhere, leaf.ndim), path


def test_variables_of_another_device():
    device = jax.devices()[3]
    fused = repjax.fuse(network, jax.device_put(jax.tree.map(jnp.asarray, W), device), X())
    assert {leaf.device for _, leaf in named_leaves(fused.params)} == {device}


def test_texts_of_fused_programs_say_what_they_hold():
    fused = repjax.fuse(network, W, X())
    for text in (repr(fused), repr(fused.apply), repr(fused.fuse_params)):
        assert "0x" not in text
        assert re.search(r"\b1 conv", text)
        assert re.search(r"\b1 dot", text)
        assert len(text) < 200


class Image(eqx.Module):
    """Functions and other things that are no arrays are leaves of such a module."""

    conv3: eqx.nn.Conv2d
    conv1: eqx.nn.Conv2d
    head: eqx.nn.MLP
    name: str = "image"

    def __init__(self, key):
        self.conv3 = eqx.nn.Conv2d(4, 4, 3, padding=1, key=key)
        self.conv1 = eqx.nn.Conv2d(4, 4, 1, key=key)
        self.head = eqx.nn.MLP(4, 3, 5, 1, key=key)

    def __call__(self, x):  # (channels, height, width)
        return self.head(jax.nn.relu(self.conv3(x) + self.conv1(x)).mean((1, 2)))


def test_modules_with_functions_are_counted_and_verified():
    module = eqx.filter_eval_shape(Image, jax.random.key(0))
    arrays, rest = eqx.partition(module, is_float)
    module = eqx.combine(random_like(arrays), rest)

    def apply(module, x):
        return module(x)

    x = image(4, 6, 6)
    fused = repjax.fuse(apply, module, x)
    before = repjax.count_operations(apply, module, x)
    after = repjax.count_operations(fused.apply, fused.params, x)
    assert before["conv_general_dilated"] == 2
    assert after["conv_general_dilated"] == 1
    verified = repjax.verify(apply, module, fused.apply, fused.params, x)
    assert verified, str(verified)
    inputs = repjax.count_operations(lambda x, module: module(x), x, module)
    assert inputs["conv_general_dilated"] == 2
