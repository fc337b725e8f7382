"""What training scripts put around a state dict is taken off, said, and never guessed past."""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

from repjax.blocks import RepVGGBlock
from repjax.torch import StateDictError, convert, load
from repjax.torch.wrappers import COMPILED, Unwrapped, WrapperError, readings, unwrap

X: Any = np.zeros((1, 8, 8, 2), np.float32)
BLOCK = RepVGGBlock(4)
STATE = {"rbr_reparam.weight": np.ones((4, 2, 3, 3)), "rbr_reparam.bias": np.arange(4.0)}
OTHER = {name: array + 1 for name, array in STATE.items()}


def prefixed(prefix: str, state: dict[str, Any] = STATE) -> dict[str, Any]:
    return {prefix + name: array for name, array in state.items()}


WRAPPED: dict[str, tuple[Any, str]] = {
    "bare": (STATE, ""),
    "ordered": (OrderedDict(STATE), ""),
    "entry": ({"state_dict": STATE, "epoch": 3, "optimizer": {}}, "entry 'state_dict'"),
    "entries": ({"model": {"state_dict": STATE}}, "entry 'model', entry 'state_dict'"),
    "parallel": (prefixed("module."), "prefix 'module.'"),
    "lightning": ({"state_dict": prefixed("model.")}, "entry 'state_dict', prefix 'model.'"),
    "compiled": (prefixed("_orig_mod."), "prefix '_orig_mod.'"),
    "compiled inside": (prefixed("module._orig_mod."), "prefix '_orig_mod.', prefix 'module.'"),
    "a compiled part": (
        {name.replace("rbr_reparam", "rbr_reparam._orig_mod"): a for name, a in STATE.items()},
        "prefix '_orig_mod.'",
    ),
    "averaged": ({**prefixed("module."), "n_averaged": np.asarray(5)}, "prefix 'module.'"),
    "averages": (
        {"state_dict": OTHER, "state_dict_ema": STATE},
        "entry 'state_dict_ema' (left aside: entry 'state_dict')",
    ),
    "no averages yet": ({"ema": None, "model": STATE}, "entry 'model'"),
    "averages in a file": (
        {**prefixed("ema.module."), **prefixed("model.", OTHER)},
        "prefix 'ema.', prefix 'module.' (left aside: prefix 'model.')",
    ),
    "an entry in a file": (
        prefixed("state_dict.module."),
        "prefix 'state_dict.', prefix 'module.'",
    ),
    "three": (prefixed("module.model.net."), "prefix 'module.', prefix 'model.', prefix 'net.'"),
}


@pytest.mark.parametrize("case", WRAPPED)
def test_wrappers_are_taken_off_and_said(case: str, caplog: pytest.LogCaptureFixture) -> None:
    wrapped, words = WRAPPED[case]
    with caplog.at_level(logging.INFO, "repjax.torch"):
        loaded = convert(BLOCK, wrapped, inputs=X)
    assert loaded.unwrapped == words
    assert loaded.arrays == 2
    np.testing.assert_array_equal(loaded.variables["params"]["conv"]["bias"], np.arange(4))
    levels = [record.levelname for record in caplog.records if record.name == "repjax.torch"]
    wanted = [] if not words else ["WARNING"] if "left aside" in words else ["INFO"]
    assert levels == wanted
    assert all(words in record.getMessage() for record in caplog.records)


def test_what_is_not_part_of_the_wrapper_is_reported() -> None:
    state = {**prefixed("model."), "criterion.weight": np.ones(3)}
    with pytest.raises(StateDictError) as caught:
        load(BLOCK, state, inputs=X)
    assert caught.value.problems == ("criterion.weight: unexpected",)
    assert "it was taken out of prefix 'model.'" in str(caught.value)


def test_names_that_would_meet_are_left_alone() -> None:
    state = {**prefixed(COMPILED), **STATE}
    assert [reading.taken for reading in readings(Unwrapped(state))] == [()]


def test_arrays_are_read_only_when_asked_for() -> None:
    class Unread(dict[str, Any]):
        def __getitem__(self, name: str) -> Any:
            raise AssertionError(name)

    names = [list(reading.state) for reading in readings(Unwrapped(Unread(prefixed("module."))))]
    assert names[-1] == list(STATE)


class Module:
    def state_dict(self) -> dict[str, Any]:
        return STATE


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (None, "found None"),
        ([STATE], "found an object of type list"),
        (3, "found an object of type int"),
        ({}, "found an empty dict"),
        ({3: np.ones(1)}, "found 3 for a name"),
        (Module(), r"found a module, Module; give its \.state_dict\(\)"),
        ({"model": Module()}, r"found at 'model' a module, Module; give its \.state_dict\(\)"),
        ({"student": STATE, "teacher": OTHER}, "found at 'student' a dict of 'rbr_reparam.weight'"),
        ({"params": {"conv": {"kernel": X}}}, "Flax variables need no loading"),
        ({"a": [np.ones(1)]}, "found at 'a' an object of type list"),
    ],
)
def test_what_is_no_state_dict_is_named(given: Any, words: str) -> None:
    with pytest.raises(WrapperError, match=words) as caught:
        unwrap(given)
    assert str(caught.value).startswith("expected a state dict, names to arrays; ")
    assert "\n" not in str(caught.value)
