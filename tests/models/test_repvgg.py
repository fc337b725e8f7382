"""RepVGG networks: parameters, operations and shapes, without computing anything large."""

from __future__ import annotations

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

PARAMETERS = {
    "repvgg_a0": (9_108_968, 8_309_384),
    "repvgg_a1": (14_092_264, 12_789_864),
    "repvgg_a2": (28_210_600, 25_499_944),
    "repvgg_b0": (15_817_960, 14_339_048),
    "repvgg_b1": (57_415_016, 51_829_480),
    "repvgg_b1g2": (45_782_376, 41_360_104),
    "repvgg_b1g4": (39_966_056, 36_125_416),
    "repvgg_b2": (89_022_376, 80_315_112),
    "repvgg_b2g2": (70_846_376, 63_956_712),
    "repvgg_b2g4": (61_758_376, 55_777_512),
    "repvgg_b3": (123_085_288, 110_960_872),
    "repvgg_b3g2": (96_911_848, 87_404_776),
    "repvgg_b3g4": (83_825_128, 75_626_728),
    "repvgg_d2se": (133_334_836, 120_387_572),
}
# (10^9 multiply-accumulates, 10^6 activations), train and deploy; D2se is listed at 320
OPERATIONS = {
    "repvgg_a0": ((1.52, 3.59), (1.36, 1.79)),
    "repvgg_a1": ((2.64, 4.74), (2.36, 2.37)),
    "repvgg_a2": ((5.7, 6.26), (5.12, 3.13)),
    "repvgg_b0": ((3.41, 6.15), (3.06, 3.07)),
    "repvgg_b1": ((13.16, 10.64), (11.82, 5.32)),
    "repvgg_b1g4": ((8.15, 10.64), (7.31, 5.32)),
    "repvgg_b2": ((20.45, 12.9), (18.38, 6.45)),
    "repvgg_b2g4": ((12.63, 12.9), (11.33, 6.45)),
    "repvgg_b3": ((29.16, 15.1), (26.21, 7.55)),
    "repvgg_b3g4": ((17.89, 15.1), (16.06, 7.55)),
    "repvgg_d2se": ((74.57, 46.82), (66.99, 23.42)),
}
BLOCKS = {"a": 22, "b": 28, "d": 48}


@pytest.mark.parametrize("name", sampled(PARAMETERS, "repvgg_a0", "repvgg_b1g2"))
def test_counts(name: str) -> None:
    model = models.create(name)
    size = model.config.preprocessing.input_size[0]
    train, deploy = count(model, size), count_deployed(model, size)
    blocks = BLOCKS[name.split("_")[1][0]]
    assert (train.parameters, deploy.parameters) == PARAMETERS[name]
    assert (train.convolutions, deploy.convolutions) == (2 * blocks, blocks)
    # every block has two norms, and a third on its identity unless its strides are 2
    assert (train.norms, deploy.norms) == (3 * blocks - 5, 0)
    if name in OPERATIONS:
        for found, (gmacs, mactivations) in zip((train, deploy), OPERATIONS[name], strict=True):
            assert found.macs / 1e9 == pytest.approx(gmacs, abs=0.0051)
            assert found.activations / 1e6 == pytest.approx(mactivations, abs=0.0051)


def test_every_network_is_listed() -> None:
    assert {name for name in models.names() if name.startswith("repvgg")} == set(PARAMETERS)


def small(**fields: object) -> models.RepVGG:
    sizes = {"depths": (1, 2, 2, 1), "widths": (4, 6, 8, 16), "num_classes": 5, **fields}
    return models.create("repvgg_a0", **sizes)


def test_features_unbatched_images_and_training() -> None:
    model = small(squeeze_excite=0.5, groups=((2, 2),))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 33, 35, 3)), jnp.float32)
    variables = random_variables(shapes_of(model, x))

    @evaluated
    def everything(variables: Any, x: jax.Array) -> Any:
        _, updates = model.apply(variables, x, train=True, mutable=["batch_stats"])
        return (
            model.apply(variables, x, method="features"),
            model.apply(variables, x),
            model.apply(variables, x[0]),
            model.deploy().apply(repjax.fuse_params(variables), x),
            updates["batch_stats"],
        )

    features, logits, alone, fused, statistics = everything(variables, x)
    shapes = [(17, 18, 4), (9, 9, 4), (5, 5, 6), (3, 3, 8), (2, 2, 16)]
    assert [y.shape[1:] for y in features] == shapes
    np.testing.assert_allclose(logits[0], alone, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(logits, fused, rtol=1e-4, atol=1e-4)
    before, after = map(jax.tree.leaves, (variables["batch_stats"], statistics))
    assert all(bool((a != b).any()) for a, b in zip(before, after, strict=True))


def test_wrong_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="in_channels"):
        jax.eval_shape(small().init, jax.random.key(0), jnp.ones((1, 32, 32, 4)))
