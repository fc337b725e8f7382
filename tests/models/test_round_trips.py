"""Every network fuses, unfuses and fuses again: one small network of each family."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

import repjax
from repjax import models
from repjax.models.bottlenecks import Row
from repjax.models.ecbsr import ECBSR, ECBSRConfig
from tests.blocks.cases import described, largest
from tests.evaluate import evaluated
from tests.models.values import random_variables
from tests.shapes import shapes_of

ROWS = ((Row(3, 4, 8),), (Row(5, 4, 8, 0.25, 2), Row(3, 8, 8)))
SIZES = {"widths": (4, 8), "depths": (1, 1)}
LARGE = {**SIZES, "kernel_sizes": (5, 3), "small_kernel_size": 3}
FASTVIT = {
    **SIZES,
    "ratios": (1, 1),
    "token_mixers": ("repmixer", "attention"),
    "position_kernels": (None, 3),
    "downsamples": (False, True),
    "patch_squeeze_excite": (False, True),
    "head_features": 4,
}
LCNETV2 = {
    **SIZES,
    "kernel_sizes": (3, 5),
    "multi_scale": (False, True),
    "squeeze_excite": (0.0, 0.5),
    "pointwise_ratios": (0.0, 0.5),
    "shortcuts": (False, True),
}
NETWORKS: dict[str, Any] = {
    "repvgg": ("repvgg_a0", {**SIZES, "squeeze_excite": 0.5}),
    "mobileone": ("mobileone_s0", {**SIZES, "copies": 2, "squeeze_excite_blocks": (0, 1)}),
    "repghost": ("repghostnet_050", {"rows": ROWS, "head_width": 8}),
    "ghostnetv3": ("ghostnetv3_050", {"rows": ROWS, "head_width": 8, "gated_from": 1}),
    "lcnetv2": ("lcnetv2_small", {**LCNETV2, "head_width": 8}),
    "fastvit": ("fastvit_sa12", FASTVIT),
    "repvit": ("repvit_m0_9", {**SIZES, "ratios": (2, 1)}),
    "replknet": ("replknet_31b", LARGE),
    "unireplknet": ("unireplknet_a", {**SIZES, "kernel_sizes": ((3,), (5, 7))}),
}


def network(family: str) -> tuple[Any, int]:
    """A small network, and how many channels it takes."""
    if family == "ecbsr":
        return ECBSR(ECBSRConfig(modules=1, features=4)), 1
    name, sizes = NETWORKS[family]
    return models.create(name, num_classes=3, **sizes), 3


def test_every_family_is_in_the_table() -> None:
    families = {type(models.create(name)) for name in models.names()}
    assert families == {type(network(family)[0]) for family in NETWORKS}


@pytest.mark.parametrize("family", [*NETWORKS, "ecbsr"])
def test_fuses_unfuses_and_fuses_again(family: str, x64: None) -> None:
    """With the branches of another training run: each has a scale and a shift of its own."""
    model, channels = network(family)
    x = jax.ShapeDtypeStruct((1, 32, 32, channels), np.float64)
    model = model.clone(param_dtype=np.float64)
    shapes = shapes_of(model, x)
    trained, like = (random_variables(shapes, seed) for seed in (0, 1))

    @evaluated
    def around(trained: Any, like: Any) -> Any:
        deployed = repjax.fuse_params(trained)
        back = repjax.unfuse_params(deployed, like)
        return deployed, back, repjax.fuse_params(back)

    deployed, back, again = around(trained, like)
    assert described(back) == described(like)
    for (path, found), wanted in zip(
        jax.tree.leaves_with_path(again), jax.tree.leaves(deployed), strict=True
    ):
        assert largest(found - wanted) <= 1e-9 * max(largest(wanted), 1e-3), path
    # the branches are those of `like`, not of the run that was deployed
    kept = [
        bool((one == two).all())
        for one, two in zip(jax.tree.leaves(back), jax.tree.leaves(like), strict=True)
    ]
    assert any(kept)
