"""Counting by the trace of `init`: what it counts is what `apply` computes."""

from __future__ import annotations

from typing import Any

import jax
import pytest

from repjax import models
from tests.models.counting import image, of_program, traced


@pytest.mark.parametrize(("name", "more"), [("repvgg_a0", {}), ("repvit_m0_9", {"ratios": (2, 2)})])
def test_init_counts_as_apply_does(name: str, more: dict[str, Any]) -> None:
    model = models.create(name, depths=(1, 1), widths=(8, 16), **more)
    counts, variables = traced(model, image(64))
    program = jax.make_jaxpr(model.apply)(variables, image(64)).jaxpr
    found = of_program(program, variables)
    assert (found.convolutions, found.activations) == (counts.convolutions, counts.activations)
    normed = counts.macs - found.macs
    assert normed > 0
    assert (found.parameters, found.norms) == (counts.parameters, counts.norms)
