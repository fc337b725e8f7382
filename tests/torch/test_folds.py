"""What official deploy forms keep: folded exactly, only when read, and refused where it misfits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import pytest

from repjax import algebra
from repjax.models.bottlenecks import Row
from repjax.models.repghost import RepGhostConfig, RepGhostNet
from repjax.torch import Names, StateDictError, load
from repjax.torch.arrays import hwio
from repjax.torch.fit import template_of
from repjax.torch.folds import NORM, Folded, FoldError
from tests.models.values import random_variables
from tests.torch.states import state_of

MODEL = RepGhostNet(config=RepGhostConfig(rows=((Row(3, 4, 4),), (Row(3, 4, 8, 0.5, 2),))))


def norm(width: int, random: np.random.Generator, **changes: Any) -> dict[str, np.ndarray]:
    arrays = {leaf: random.normal(size=width) for leaf in NORM}
    arrays["running_var"] = random.uniform(0.5, 2, width)
    return {f"bn.{leaf}": changes.get(leaf, arrays[leaf]) for leaf in NORM}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("behind", [False, True])
def test_norms_fold_as_in_the_algebra(behind: bool, bias: bool, x64: None) -> None:
    random = np.random.default_rng(0)
    kernel = random.normal(size=(5, 3, 3, 1) if behind else (5, 3, 1, 1))
    vector = random.normal(size=5) if bias else None
    arrays = norm(5 if behind else 3, random)
    state = Folded({"conv.weight": kernel, **({"conv.bias": vector} if bias else {}), **arrays})
    (state.norm_behind if behind else state.norm_in_front)("conv", "bn", 1e-3)
    assert list(state) == ["conv.weight", "conv.bias"]
    conv = algebra.Conv(hwio(kernel), vector)
    mean, variance = arrays["bn.running_mean"], arrays["bn.running_var"]
    affine = algebra.batch_norm(
        mean, variance, arrays["bn.weight"], arrays["bn.bias"], epsilon=1e-3, dims=2
    )
    wanted = algebra.compose(conv, affine) if behind else algebra.compose(affine, conv)
    np.testing.assert_allclose(hwio(state["conv.weight"]), wanted.kernel, rtol=1e-14)
    np.testing.assert_allclose(state["conv.bias"], wanted.bias, rtol=1e-13, atol=1e-14)


def test_a_scale_folds_into_a_matrix_and_its_bias_and_makes_none() -> None:
    matrix, factors = np.arange(6.0).reshape(2, 3), np.array([[[2.0]], [[-1.0]]])
    state = Folded({"fc.weight": matrix, "scale": factors})
    state.scale_behind("fc", "scale")
    assert list(state) == ["fc.weight"]
    np.testing.assert_array_equal(state["fc.weight"], [[0, 2, 4], [-3, -4, -5]])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"running_var": np.array([1.0, -1, 1, 1])}, "bn.running_var: has negative numbers"),
        ({"bias": np.ones(3)}, r"bn: its arrays have the shapes \(4,\), \(3,\)"),
        (dict.fromkeys(NORM, np.ones(3)), r"bn: has shape \(3,\), expected \(4,\)"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], words: str) -> None:
    arrays = norm(4, np.random.default_rng(0), **changes)
    state = Folded({"conv.weight": np.ones((4, 2, 3, 3)), **arrays})
    state.norm_behind("conv", "bn", 1e-5)
    with pytest.raises(FoldError, match=words):
        state["conv.weight"]


def test_a_norm_in_front_of_more_than_a_point_is_refused() -> None:
    state = Folded({"conv.weight": np.ones((4, 4, 3, 3)), **norm(4, np.random.default_rng(0))})
    state.norm_in_front("conv", "bn", 1e-5)
    with pytest.raises(FoldError, match=r"stands before conv, whose kernel is \(4, 4, 3, 3\)"):
        state["conv.bias"]


class Watched(Mapping[str, Any]):
    """A state dict that counts how often an array is read."""

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        self.arrays, self.reads = arrays, dict.fromkeys(arrays, 0)

    def __getitem__(self, name: str) -> Any:
        self.reads[name] += 1
        return self.arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)


def test_a_train_form_is_read_once_and_nothing_is_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), "float32")
    state = Watched(state_of(MODEL, random_variables(jax.eval_shape(MODEL.init, KEY, x))))
    traced: list[bool] = []

    def record(model: Any, deployed: bool, inputs: Any) -> Any:
        traced.append(deployed)
        return template_of(model, deployed, inputs)

    monkeypatch.setattr("repjax.torch.folds._affine", None)
    monkeypatch.setattr("repjax.torch.fit.template_of", record)
    load(MODEL, state)
    assert set(state.reads.values()) == {1}
    assert traced == [False]


def test_problems_of_kept_norms_are_reported_once() -> None:
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), "float32")
    variables = random_variables(jax.eval_shape(MODEL.deploy().init, KEY, x))
    state = state_of(MODEL, variables)
    width = state["conv_stem.weight"].shape[0]
    state |= {f"bn1.{leaf}": -np.ones(width) for leaf in NORM}
    del state["conv_stem.bias"]
    with pytest.raises(StateDictError) as caught:
        load(MODEL, state)
    assert str(caught.value).count("bn1.running_var: has negative numbers") == 1
    assert ", 1 problem (original naming, deploy form)" in str(caught.value)


def test_templates_may_have_groups_of_their_own() -> None:
    names = Names({}, kept_norms={r"(.*\b)conv(\d)": r"\1bn\2"})
    ones = {f"a.bn1.{leaf}": np.ones(2) for leaf in NORM}
    assert list(names.deploy_form({"a.conv1.weight": np.ones((2, 2, 1, 1)), **ones})) == [
        "a.conv1.weight",
        "a.conv1.bias",
    ]


KEY = jax.random.key(0)
