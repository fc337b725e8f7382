"""Networks of other people: Keras in a process of its own, Haiku, Equinox and equimo."""

from __future__ import annotations

import functools
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from tests.tracing.checks import check, image, is_float, leaves_called, random_like
from tests.tracing.reading import work

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("x64"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:haiku"),
]

ROOT = Path(__file__).parents[2]


@functools.cache
def keras_networks():
    done = subprocess.run(
        [sys.executable, "-m", "tests.tracing.keras_networks"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


# Convolutions, dots and pools, products of data with what is no data, bias maps. What is left of
# products: 1/N of a mean; in a dense net, the norms of data that other layers read as they are.
KERAS = {
    "residual": ({"conv": 3, "dot": 1}, 1, 1),
    "separable": ({"conv": 5}, 1, 0),
    "dense": ({"conv": 4, "pool": 1}, 3, 0),
    "branches": ({"conv": 2}, 0, 0),
}


@pytest.mark.parametrize("name", KERAS)
@pytest.mark.skipif(importlib.util.find_spec("keras") is None, reason="needs Keras")
def test_keras(name):
    after, products, maps = KERAS[name]
    found = keras_networks()[name]
    assert found["error"] <= 1e-6  # batch norm of Keras is in float32, whatever the policy
    assert found["after"] == after
    assert found["products"][1] == products
    assert found["macs"][1] <= found["macs"][0]
    assert found["maps"] == maps
    paths = found["paths"]  # variables are numbered lists: the layers' scopes name the regions
    words = ("conv", "dense", "batch_normalization", "pooling")
    assert all(any(word in path for word in words) for path in paths), paths
    assert len(set(paths)) > len(paths) / 2, paths  # the two kernels of a separable share its name
    assert not [reason for reason in found["reasons"] if "two spatial kernels" in reason]


def haiku(build, shape, before, after, **options):
    hk = pytest.importorskip("haiku")

    def forward(x, is_training):
        return build(hk)(x, is_training=is_training)

    network = hk.without_apply_rng(hk.transform_with_state(forward))
    x, key = image(*shape), jax.random.key(0)
    shapes = jax.eval_shape(lambda key: network.init(key, x, True), key)
    params, state = jax.tree.map(
        lambda leaf: leaf if is_float(leaf) else jnp.zeros(leaf.shape, leaf.dtype),
        random_like(shapes),
    )
    variables = {"params": params, "state": state}

    def apply(v, x):
        return network.apply(v["params"], v["state"], x, False)[0]

    return check(apply, variables, x, before=before, after=after, **options)


def test_haiku_mobilenet():
    fused = haiku(
        lambda hk: hk.nets.MobileNetV1((1, 2, 1), (8, 16, 32), 10),
        (1, 16, 16, 3),
        {"conv": 7, "dot": 1},
        {"conv": 7, "dot": 1},
        products=0,
    )
    assert len(leaves_called(fused.params, "offset")) == 0


def small_resnet(second, hk):
    return hk.nets.ResNet(
        *((1, 1, 1, 1), 10),
        resnet_v2=second,
        bottleneck=second,
        channels_per_group=(8, 8, 16, 16),
        use_projection=(True,) * 4,
    )


def test_haiku_resnet():
    both = {"conv": 13, "dot": 1}
    build = functools.partial(small_resnet, False)
    haiku(build, (1, 32, 32, 3), both, both, products=0)


def test_haiku_resnet_of_the_second_kind():
    both = {"conv": 17, "dot": 1}
    build = functools.partial(small_resnet, True)
    # norms come before the convolutions, after sums that nothing else reads: they go into both
    # convolutions of a sum. Only the first comes after a maximum.
    haiku(build, (1, 32, 32, 3), both, both, products=1)


def random_module(build):
    """Random float64 arrays in an Equinox module made without computing anything."""
    module = eqx.filter_eval_shape(build, key=jax.random.key(0))
    arrays, rest = eqx.partition(module, is_float)
    return eqx.combine(random_like(arrays), rest)


class Block(eqx.Module):
    conv1: eqx.nn.Conv2d
    norm1: eqx.nn.BatchNorm
    conv2: eqx.nn.Conv2d
    norm2: eqx.nn.BatchNorm

    def __init__(self, features, key):
        def conv():
            return eqx.nn.Conv2d(features, features, 3, padding=1, use_bias=False, key=key)

        def norm():
            return eqx.nn.BatchNorm(features, "batch", inference=True, mode="ema")

        self.conv1, self.conv2, self.norm1, self.norm2 = conv(), conv(), norm(), norm()

    def __call__(self, x, state):
        y, state = self.norm1(self.conv1(x), state)
        y, state = self.norm2(self.conv2(jax.nn.relu(y)), state)
        return jax.nn.relu(x + y), state


def test_equinox_residual_block_with_state():
    module, state = eqx.nn.make_with_state(Block)(4, jax.random.key(0))
    arrays, rest = eqx.partition((module, state), is_float)
    variables = eqx.combine(random_like(arrays), rest)

    def apply(variables, x):
        module, state = variables
        return jax.vmap(module, (0, None), (0, None), axis_name="batch")(x, state)[0]

    check(apply, variables, image(2, 4, 6, 6), after={"conv": 2}, products=0, shifts=2)


def test_equimo_ghost_module():
    convolution = pytest.importorskip("equimo.layers.convolution")

    def build(key):
        return convolution.GenericGhostModule(8, 16, kernel_size=3, key=key)

    def apply(module, x):
        return module(x, inference=False)

    x = image(8, 6, 6)
    module = random_module(build)
    finished = convolution.finalize_ghostnet(module)  # their own way of merging
    fused = check(apply, module, x, before={"conv": 8}, after={"conv": 2})
    theirs = work(lambda m, x: m(x, inference=True), finished, x)
    assert work(fused.apply, fused.params, x).macs == theirs.macs


def test_equimo_partial_convolution():
    convolution = pytest.importorskip("equimo.layers.convolution")

    def build(key):
        return convolution.PartialConv2d(8, 4, key=key)

    def apply(module, x):
        return jnp.tanh(module(jnp.sin(x)))

    fused = check(apply, random_module(build), image(8, 6, 6), after={"conv": 1})
    assert work(fused.apply, fused.params, image(8, 6, 6)).macs == 36 * 2 * 18
