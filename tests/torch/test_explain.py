"""Files that do not fit: the message names what they are and the option that helps."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from repjax import models
from repjax.torch import StateDictError, load
from repjax.torch.explain import named
from tests.torch.states import shapes_of, state_of

REPVGG: dict[str, Any] = {"depths": (1, 1, 1, 1), "widths": (4, 4, 6, 8)}
REPVIT: dict[str, Any] = {"depths": (1, 1), "widths": (8, 16), "ratios": (2, 2)}


def state(name: str, naming: str = "original", **fields: Any) -> dict[str, Any]:
    """A state dict of zeros."""
    model = models.create(name, **fields)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes_of(model))
    return state_of(model, zeros, naming)


def without_head(found: dict[str, Any]) -> dict[str, Any]:
    return {name: array for name, array in found.items() if "linear" not in name}


@pytest.mark.parametrize(
    ("model", "found", "words"),
    [
        (
            ("repvgg_a0", REPVGG),
            ("repvgg_a0", {"num_classes": 21, **REPVGG}),
            ["it has 21 classes, the model 1000", "--num-classes 21)", "--new-head 0)"],
        ),
        (
            ("repvgg_a0", REPVGG),
            ("repvgg_a0", {"in_channels": 1, "deployed": True, **REPVGG}),
            ["it is for images of 1 channel, the model for 3: in_channels=1 (--in-channels 1)"],
        ),
        (
            ("repvgg_a0", {"num_classes": 5, "in_channels": 4, **REPVGG}),
            ("repvgg_a0", {"naming": "timm", **REPVGG}),
            ["it has 1000 classes, the model 5", "it is for images of 3 channels, the model for 4"],
        ),
        (
            ("repvit_m0_9", REPVIT),
            ("repvit_m0_9", {"heads": 1, "num_classes": 7, **REPVIT}),
            ["it has 1 head, the model 2: heads=1 (--set heads=1)", "it has 7 classes"],
        ),
        (
            ("repvit_m0_9", {"heads": 1, **REPVIT}),
            ("repvit_m0_9", {"naming": "timm", **REPVIT}),
            ["it has 2 heads, the model 1: heads=2 (--set heads=2)"],
        ),
    ],
)
def test_other_classes_channels_and_heads(model: Any, found: Any, words: list[str]) -> None:
    name, fields = model
    with pytest.raises(StateDictError) as caught:
        load(models.create(name, **fields), state(found[0], **found[1]))
    text = str(caught.value)
    assert all(word in text for word in words), text
    assert text.count("it has") + text.count("it is") == len([w for w in words if "it " in w])
    assert len(text.splitlines()) <= 20


def test_a_file_without_a_head_or_with_another() -> None:
    model = models.create("repvgg_a0", **REPVGG)
    whole = state("repvgg_a0", **REPVGG)
    with pytest.raises(StateDictError, match=r"it has no head: .* \(--new-head 0\) makes one"):
        load(model, without_head(whole))
    two_layers = {**without_head(whole), "linear.weight": np.zeros((1000, 99))}
    with pytest.raises(StateDictError, match=r"it has another head: .*--new-head 0"):
        load(model, two_layers)


MOBILEONE: dict[str, Any] = {"depths": (1, 1, 1, 1), "widths": (4, 4, 4, 4)}
SMALL: dict[str, dict[str, Any]] = {
    "repvit_m0_9": REPVIT,
    "repvit_m1_0": {**REPVIT, "widths": (12, 16)},
    "repvgg_a0": REPVGG,
    "repvgg_a1": {**REPVGG, "depths": (1, 2, 1, 1)},
    "mobileone_s0": MOBILEONE,
    "mobileone_s1": {**MOBILEONE, "widths": (4, 6, 6, 8)},
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there were only these networks, in small sizes."""
    create = models.create
    monkeypatch.setattr("repjax.models.names", lambda: list(SMALL))
    monkeypatch.setattr(
        "repjax.models.create", lambda name, **fields: create(name, **{**SMALL[name], **fields})
    )


@pytest.mark.parametrize("deployed", [False, True])
@pytest.mark.parametrize(
    ("own", "other"),
    [("repvit_m0_9", "repvit_m1_0"), ("repvgg_a0", "repvgg_a1"), ("repvgg_a0", "mobileone_s1")],
)
def test_another_size_or_family_is_named(own: str, other: str, deployed: bool, small: None) -> None:
    with pytest.raises(StateDictError) as caught:
        load(models.create(own), state(other, "timm", num_classes=10, deployed=deployed))
    text = str(caught.value)
    assert text.startswith(f"the state dict does not fit {own}, ")
    assert f"it is of {other}: repjax.models.create({other!r})" in text
    assert len(text.splitlines()) <= 20
    assert len(caught.value.problems) > 12 or "more; the error's" not in text


@pytest.mark.parametrize(
    ("other", "sizes", "words"),
    [
        ("mobileone_s0", {"depths": (1, 2, 1, 1)}, "another family, a MobileOne of a size that is"),
        ("repvgg_a0", {"widths": (4, 4, 4, 8)}, "another size, a RepVGG of a size that is not"),
    ],
)
def test_families_are_named_where_no_size_fits(
    other: str, sizes: Any, words: str, small: None
) -> None:
    with pytest.raises(StateDictError, match=words):
        load(models.create("repvgg_a0"), state(other, **sizes))


def test_a_foreign_file_is_named(small: None) -> None:
    foreign = {"conv1.weight": np.zeros((64, 3, 7, 7)), "fc.bias": np.zeros(1000)}
    with pytest.raises(StateDictError, match="hardly any name is one of a network of repjax"):
        load(models.create("repvgg_a0"), foreign)


def test_a_few_wrong_arrays_make_no_other_network(small: None) -> None:
    found = state("repvgg_a0")
    found |= {name: np.ones((3, 3)) for name in list(found)[:2]}
    with pytest.raises(StateDictError) as caught:
        load(models.create("repvgg_a0"), found)
    assert "it is of" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 3


def test_published_networks_are_found_among_all() -> None:
    """Without stand-ins: the names of a whole family lead to its member."""
    with pytest.raises(StateDictError, match="it is of repvgg_a1: "):
        load(models.create("repvgg_a0"), state("repvgg_a1", deployed=True))


def test_variables_are_told_from_state_dicts() -> None:
    own = {"params/stem/conv/kernel": np.zeros((3, 3, 3, 4)), "params/head/bias": np.zeros(5)}
    with pytest.raises(StateDictError, match="paths of repjax variables, which need no conversion"):
        load(models.create("repvgg_a0", **REPVGG), own)


def test_networks_are_named_by_their_configuration() -> None:
    assert named(models.create("repvgg_b1g4", num_classes=3)) == "repvgg_b1g4"
    assert named(models.create("repvgg_a0", **REPVGG)) == "RepVGG"
