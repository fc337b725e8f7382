"""`add_branches`: groups, shardings, and refusals that say why; `tests/training` has the rest."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import repjax
from repjax import branches as b
from tests.training.kernels import alike

KEY = jax.random.key(3)


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

    def add(tree: Any) -> Any:
        return repjax.add_branches(tree, (b.Scale(b.Pointwise()), b.KxK(3)), KEY)

    forms = [add(tree), jax.jit(add)(tree)]
    for number, wide in enumerate(forms):
        for leaf in jax.tree.leaves(wide):
            # under jit the compiler places what has no explicit axes
            assert (number and kind is AxisType.Auto) or leaf.sharding.spec[-1] == "model"
        alike(repjax.fuse_params(wide), tree, 1e-5)
    alike(forms[1], forms[0], 1e-5)


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
