"""The results in docs/training.md are those of the committed files of metrics."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments import training_table
from experiments.train import log

ROOT = Path(__file__).parents[2]


def test_the_page_is_current(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    page = training_table.PAGE.read_text()
    assert training_table.page(page) == page
    assert training_table.FIGURE.exists()


def test_the_metrics_are_of_whole_runs() -> None:
    folder = ROOT / training_table.METRICS
    for form in training_table.FORMS:
        results = sorted(folder.glob(f"{form}-*.json"))
        assert len(results) >= 3
        for path in results:
            result = json.loads(path.read_text())
            records = log.read(path.with_suffix(".jsonl"))
            assert result["form"] == form
            assert result["verified"]
            assert path.stem == f"{form}-{result['seed']}"
            assert [r["epoch"] for r in records if "watched_loss" in r] == [1, 2, 3]


def test_a_flipped_prediction_is_listed_with_its_margin() -> None:
    result = {"form": "multi", "seed": 2, "verified": True, "largest_move_of_a_logit": 2e-6}
    flip = {"image": 7, "label": 1, "predicted": [1, 3], "margin_before": 1e-6}
    words = training_table.flips({"multi": [result | {"flipped": [flip]}]})
    assert "test image 7, class 1 before and 3 after fusing, with a margin of 1.0e-06" in words
    assert training_table.flips({"multi": [result | {"flipped": []}]}).endswith(" none.")
