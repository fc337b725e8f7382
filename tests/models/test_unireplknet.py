"""UniRepLKNet networks: parameters, operations and shapes, without computing anything large."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import repjax
from repjax import models
from repjax.torch import StateDictError, load
from repjax.torch.fit import flat
from repjax.torch.names import names_of, oihw
from tests.evaluate import evaluated
from tests.models.counting import Counts, count, count_deployed, image, traced
from tests.models.values import random_variables
from tests.shapes import shapes_of

PARAMETERS = {
    "unireplknet_a": (4_649_060, 4_437_300),
    "unireplknet_f": (6_489_328, 6_235_216),
    "unireplknet_p": (11_080_520, 10_741_704),
    "unireplknet_n": (18_818_880, 18_318_560),
    "unireplknet_t": (31_693_420, 31_037_980),
    "unireplknet_s": (56_456_704, 55_645_984),
    "unireplknet_b": (99_089_416, 98_008_456),
    "unireplknet_l": (220_076_056, 218_454_616),
    "unireplknet_xl": (388_690_984, 386_529_064),
}
# 10^9 multiply-accumulates of the deploy form at 224x224, as published
GMACS = {
    "unireplknet_a": 0.6,
    "unireplknet_f": 0.9,
    "unireplknet_p": 1.6,
    "unireplknet_n": 2.8,
    "unireplknet_t": 4.9,
    "unireplknet_s": 9.1,
}
COUNTED = ("unireplknet_p", "unireplknet_n", "unireplknet_t")


@pytest.mark.parametrize("name", COUNTED)
def test_counts(name: str) -> None:
    """Of one network of each plan; the others differ in width alone, or are deeper."""
    model = models.create(name)
    train, deploy = count(model), count_deployed(model)
    assert (train.parameters, deploy.parameters) == PARAMETERS[name]
    check_operations(name, deploy)
    config = model.config
    blocks = sum(config.depths)
    large = sum(
        (depth + i) // len(sizes)
        for depth, sizes in zip(config.depths, config.kernel_sizes, strict=True)
        for i, size in enumerate(reversed(sizes))
        if size == 13
    )
    small = blocks - large
    # a large kernel has five branches beside it; every block has a second linear layer
    assert train.convolutions == 5 + 6 * large + small + blocks
    assert deploy.convolutions == 5 + 2 * blocks
    # one for every branch, one after their sum, one after the second linear layer
    assert (train.norms, deploy.norms) == (8 * large + 2 * small, 0)


@pytest.mark.parametrize("name", [name for name in PARAMETERS if name not in COUNTED])
def test_parameters_and_operations(name: str) -> None:
    model = models.create(name)
    counts, _ = traced(model.deploy(), image(224))
    train = sum(leaf.size for leaf in jax.tree.leaves(shapes_of(model, image(64))["params"]))
    assert (train, counts.parameters) == PARAMETERS[name]
    check_operations(name, counts)


def check_operations(name: str, counts: Counts) -> None:
    if name in GMACS:
        assert counts.macs / 1e9 == pytest.approx(GMACS[name], abs=0.06)


def test_every_network_is_listed() -> None:
    assert {name for name in models.names() if name.startswith("unireplknet")} == set(PARAMETERS)


def test_published_kernel_sizes() -> None:
    model = models.create("unireplknet_t", widths=(4, 4, 4, 4))
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    params = shapes_of(model.deploy(), x)["params"]
    sizes = {
        name: next(params[name][kind]["kernel"].shape[0] for kind in KINDS if kind in params[name])
        for name in params
        if "_block" in name
    }
    assert [sizes[f"stage1_block{index}"] for index in range(3)] == [3, 3, 3]
    assert [sizes[f"stage2_block{index}"] for index in range(3)] == [13, 13, 13]
    assert [sizes[f"stage3_block{index}"] for index in range(18)] == [13, 3] * 9


KINDS = ("depthwise", "large_kernel")
SMALL = {
    "widths": (4, 8, 8, 8),
    "depths": (1, 1, 2, 1),
    "kernel_sizes": ((3,), (5,), (7, 0), (3,)),
    "num_classes": 5,
}


def small(**fields: object) -> models.Network:
    return models.create("unireplknet_a", **{**SMALL, **fields})


def variables_of(model: models.Network, x: jax.Array) -> dict[str, object]:
    return random_variables(shapes_of(model, x))


def images() -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=(2, 33, 45, 3)), jnp.float32)


def test_features_and_unbatched_images() -> None:
    model, x = small(norm_features=True), images()
    variables = variables_of(model, x)
    outputs = jax.eval_shape(lambda v, x: model.apply(v, x, method="features"), variables, x)
    shapes = [(9, 12, 4), (5, 6, 8), (3, 3, 8), (2, 2, 8)]
    assert [y.shape for y in outputs] == [(2, *shape) for shape in shapes]
    both = evaluated(lambda v, x: (model.apply(v, x)[0], model.apply(v, x[0])))
    np.testing.assert_allclose(*both(variables, x), rtol=2e-5, atol=2e-5)


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


def state_of(variables: dict[str, object]) -> dict[str, np.ndarray]:
    """The state dict that PyTorch would have, by the table of names."""
    names = names_of(models.UniRepLKNet)["original"]
    leaves = {names.key(place[1:]): (place, leaf) for place, leaf in flat(variables).items()}
    return {
        key: oihw(np.asarray(leaf)) if place[-1] == "kernel" else np.asarray(leaf)
        for key, (place, leaf) in leaves.items()
    }


def test_another_width_and_other_blocks_are_named() -> None:
    model = small()
    variables = variables_of(model, images())
    state = state_of(variables)
    loaded = load(model, state)
    same = jax.tree.map(lambda a, b: bool((a == b).all()), loaded, variables)
    assert all(jax.tree.leaves(same))
    with pytest.raises(StateDictError) as error:
        load(small(widths=(4, 8, 8, 12), kernel_sizes=((3,), (5,), (7, 3), (3,))), state)
    for words in (
        "stages.2.1.dwconv.weight: missing",
        "head.weight: has shape (5, 8), expected (5, 12)",
        "stages.3.0.act.1.beta: has shape (32,), expected (48,)",
    ):
        assert words in error.value.problems
