"""Bad calls of the loader: each says what was given, what is expected and what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from repjax import models
from repjax.blocks import RepConv, RepVGGBlock
from repjax.torch import load, read, register_names, write

BLOCK = RepVGGBlock(4)
NETWORK = models.create("repvgg_a0", depths=(1, 1, 1, 1), widths=(4, 4, 4, 4))
STATE: dict[str, Any] = {"rbr_reparam.weight": np.ones((4, 2, 3, 3))}
X = jax.ShapeDtypeStruct((1, 8, 8, 2), "float32")


class Module:
    def state_dict(self) -> None: ...


# call, words that must occur, longest length
TABLE: dict[str, tuple[Callable[[], Any], tuple[str, ...], int]] = {
    "no model": (lambda: load(None, STATE), ("model: expected a network", "found None"), 120),  # type: ignore[arg-type]
    "a name": (
        lambda: load("repvgg_a0", STATE),  # type: ignore[arg-type]
        ("repjax.models.create('repvgg_a0')", "found 'repvgg_a0'"),
        120,
    ),
    "a class": (lambda: load(RepVGGBlock, STATE), ("found the class RepVGGBlock",), 120),  # type: ignore[arg-type]
    "no state": (lambda: load(NETWORK, None), ("expected a state dict", "found None"), 80),  # type: ignore[arg-type]
    "a list": (lambda: load(NETWORK, [STATE]), ("state dict", "an object of type list"), 80),  # type: ignore[arg-type]
    "a module": (lambda: load(NETWORK, Module()), ("a module, Module", ".state_dict()"), 100),  # type: ignore[arg-type]
    "an empty state": (lambda: load(NETWORK, {}), ("found an empty dict",), 80),
    "an integer": (lambda: load(NETWORK, 3), ("found an object of type int",), 80),  # type: ignore[arg-type]
    "no inputs": (
        lambda: load(BLOCK, STATE),
        ("RepVGGBlock does not know its input", "inputs=jax.ShapeDtypeStruct("),
        130,
    ),
    "a shape": (
        lambda: load(BLOCK, STATE, inputs=(1, 8, 8, 2)),
        ("inputs: expected an array or jax.ShapeDtypeStruct", "found (1, 8, 8, 2)"),
        140,
    ),
    "a seed": (
        lambda: load(NETWORK, STATE, new_head=0),  # type: ignore[arg-type]
        ("new_head: expected a random key such as jax.random.key(0), found 0",),
        80,
    ),
    "two keys": (
        lambda: load(NETWORK, STATE, new_head=jax.random.split(jax.random.key(0))),
        ("new_head: expected a random key",),
        160,
    ),
    "a naming": (
        lambda: load(NETWORK, STATE, naming="tim"),
        ("no naming 'tim' of RepVGG", "['original', 'timm']"),
        80,
    ),
    "no table": (
        lambda: load(RepConv(4), STATE, inputs=X),
        ("no PyTorch naming of RepConv is known", "RepVGGBlock"),
        600,
    ),
    "a file of None": (lambda: read(None), ("expected a path, found None",), 60),  # type: ignore[arg-type]
    "a list to write": (
        lambda: write("x.npz", [1.0]),  # type: ignore[arg-type]
        ("expected names to arrays, found a list",),
        60,
    ),
    "a number for a name": (
        lambda: write("x.npz", {3: np.ones(1)}),  # type: ignore[dict-item]
        ("expected names to arrays, found the name 3",),
        60,
    ),
    "rules for a table": (
        lambda: register_names(RepConv, original={"conv": "x"}),  # type: ignore[arg-type]
        ("original: expected Names or a function of the model, found a dict",),
        90,
    ),
}


@pytest.mark.parametrize("case", TABLE)
def test_bad_calls_are_explained(case: str) -> None:
    call, words, longest = TABLE[case]
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    text = str(caught.value)
    assert all(word in text for word in words), text
    assert len(text) <= longest, text
    assert "\n" not in text
