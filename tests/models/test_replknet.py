"""RepLKNet networks: parameters, operations and shapes, without computing anything large."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import repjax
from repjax import models
from tests.evaluate import evaluated
from tests.models.counting import count, count_deployed
from tests.models.sampled import sampled
from tests.models.values import random_variables
from tests.shapes import shapes_of

# train, and the official deploy form, which merges kernels but keeps the other norms
PARAMETERS = {
    "replknet_31b": (79_864_168, 79_527_272),
    "replknet_31l": (172_671_016, 172_165_672),
    "replknet_xl": (335_435_752, 335_399_656),
}
# 10^9 multiply-accumulates at the published size
GMACS = {"replknet_31b": 15.3, "replknet_xl": 128.7}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters(name: str) -> None:
    x = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    forms = [models.create(name, deployed=deployed) for deployed in (False, True)]
    shapes = (shapes_of(form, x)["params"] for form in forms)
    found = tuple(sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in shapes)
    train, official = PARAMETERS[name]
    assert found == (train, official - norms_that_fold(forms[0].config))


@pytest.mark.parametrize("name", sampled(["replknet_31b", "replknet_xl"], "replknet_31b"))
def test_counts(name: str) -> None:
    """31L is 31B, wider."""
    model = models.create(name)
    config = model.config
    size = config.preprocessing.input_size[0]
    train, deploy = count(model, size), count_deployed(model, size)
    pairs = sum(config.depths)
    kernels = 1 if config.small_kernel_size is None else 2
    assert train.convolutions == 4 + 6 + (4 + kernels) * pairs + 1
    assert deploy.convolutions == 4 + 6 + 5 * pairs + 1
    assert (train.norms, deploy.norms) == (4 + 6 + (6 + kernels) * pairs + 1, 0)
    assert deploy.macs / 1e9 == pytest.approx(GMACS[name], abs=0.06)


def norms_that_fold(config: models.replknet.RepLKNetConfig) -> int:
    """Parameters that the official deploy form has more than ours, which has no norm left.

    A norm after a convolution becomes its bias, of two vectors one is left; a norm in front
    of one with a bias goes altogether.
    """
    stem = 4 * config.widths[0]
    transitions = sum(2 * width for width in config.widths[1:])
    pairs = sum(
        # large kernel block: in front, pointwise1, pointwise2; feed-forward: the same
        depth
        * (2 * w + int(config.depthwise_ratio * w) + w + 2 * w + int(config.ffn_ratio * w) + w)
        for depth, w in zip(config.depths, config.widths, strict=True)
    )
    return stem + transitions + pairs + 2 * config.widths[-1]


def test_every_network_is_listed() -> None:
    assert {name for name in models.names() if name.startswith("replknet")} == set(PARAMETERS)


SMALL = {
    "widths": (4, 6, 8, 8),
    "depths": (1, 1, 2, 1),
    "kernel_sizes": (7, 5, 5, 3),
    "small_kernel_size": 3,
    "num_classes": 5,
    "drop_path": 0.0,
}


def small(**fields: object) -> models.Network:
    return models.create("replknet_31b", **{**SMALL, **fields})


def variables_of(model: models.Network, x: jax.Array) -> dict[str, object]:
    return random_variables(shapes_of(model, x))


def images() -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=(2, 33, 45, 3)), jnp.float32)


def test_features_and_unbatched_images() -> None:
    model, x = small(), images()
    variables = variables_of(model, x)
    outputs = jax.eval_shape(lambda v, x: model.apply(v, x, method="features"), variables, x)
    shapes = [(9, 12, 4), (5, 6, 6), (3, 3, 8), (2, 2, 8)]
    assert [y.shape for y in outputs] == [(2, *shape) for shape in shapes]
    both = evaluated(lambda v, x: (model.apply(v, x)[0], model.apply(v, x[0])))
    np.testing.assert_allclose(*both(variables, x), rtol=1e-4, atol=1e-4)


def test_norms_of_features_stay() -> None:
    model = small(norm_features=True)
    x = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    variables = shapes_of(model, x)
    deployed = jax.eval_shape(repjax.fuse_params, variables)
    assert sorted(deployed["batch_stats"]) == [f"stage{stage}_norm" for stage in (1, 2, 3, 4)]


def test_training_fuses_and_drops_paths() -> None:
    model, x = small(drop_path=0.5), images()
    variables = variables_of(model, x)
    train = evaluated(
        lambda v, key: model.apply(v, x, True, mutable=["batch_stats"], rngs={"dropout": key})
    )
    (one, updates), (two, _) = (train(variables, jax.random.key(seed)) for seed in (0, 1))
    assert bool((one != two).any())
    changed = {**variables, **updates}

    @evaluated
    def forms(changed: Any, x: Any) -> Any:
        fused = model.deploy().apply(repjax.fuse_params(changed), x)
        return model.apply(changed, x), fused

    native, fused = forms(changed, x)
    np.testing.assert_allclose(native, fused, rtol=1e-3, atol=1e-4)


def test_the_last_norm_takes_the_statistics_of_the_map() -> None:
    """Not of its mean, though the head that it belongs to comes after the mean."""
    model, x = small(), images()
    variables = variables_of(model, x)
    train = functools.partial(model.apply, train=True, mutable=["batch_stats"])

    @evaluated
    def run(variables: Any, x: Any) -> Any:
        return train(variables, x, method="features"), train(variables, x)

    (maps, _), (_, updates) = run(variables, x)
    (old,), (new,) = (t["batch_stats"]["head"].values() for t in (variables, updates))
    mean = 0.9 * old["identity"]["norm"]["mean"] + 0.1 * maps[-1].mean(axis=(0, 1, 2))
    np.testing.assert_allclose(new["identity"]["norm"]["mean"], mean, rtol=1e-4, atol=1e-5)
    var = 0.9 * old["identity"]["norm"]["var"] + 0.1 * maps[-1].var(axis=(0, 1, 2))
    np.testing.assert_allclose(new["identity"]["norm"]["var"], var, rtol=1e-4, atol=1e-5)
