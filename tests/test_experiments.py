"""The scripts do what they say, on smaller settings."""

import json
import re
from pathlib import Path

import pytest

from experiments import compare, over_parameterize, quickstart, timing


def test_compare_finds_three_equal_forms(tmp_path: Path):
    config = compare.Config(
        sizes=("2x6x7x4",), repeats=5, seconds=0.0, output=tmp_path, kernel_size=5
    )
    rows = compare.main(config)
    assert len(rows) == 2 * len(timing.option_names()) * 3
    assert all(row["equal"] for row in rows)
    convolutions = {
        form: {r["convolutions"] for r in rows if r["form"] == form} for form in compare.FORMS
    }
    assert convolutions == {"native": {2}, "three KxK": {3}, "fused": {1}}
    flops = {row["form"]: row["megaflops"] for row in rows[-3:]}
    assert flops["fused"] < flops["native"] < flops["three KxK"]
    written = json.loads((tmp_path / "compare.json").read_text())
    assert len(written["rows"]) == len(rows)
    assert (tmp_path / "compare.png").stat().st_size > 10_000


def test_the_block_of_ones_by_hand():
    block, variables, x = compare.make((1, 9, 9, 2), "float32", compare.Config())
    y = block.apply(variables, x)
    # inside: 9 taps x 2 channels + bias 1, + 2 channels + bias 1, + 1
    assert float(y[0, 4, 4, 0]) == 18 + 1 + 2 + 1 + 1
    assert float(y[0, 0, 0, 0]) == 8 + 1 + 2 + 1 + 1
    assert float(compare.apply_three(compare.three_kxk(variables), x)[0, 0, 4, 1]) == 12 + 5


@pytest.mark.parametrize(
    ("required", "code"), [(1.01, 1), pytest.param(0.05, 0, marks=pytest.mark.slow)]
)
def test_quickstart_runs_and_judges(tmp_path: Path, required: float, code: int):
    config = quickstart.Config(
        widths=(4, 6), depth=2, epochs=1, repeats=5, required_accuracy=required, output=tmp_path
    )
    assert quickstart.main(config) == code
    written = json.loads((tmp_path / "quickstart.json").read_text())
    assert written["convolutions"] == [8, 4]
    assert written["agree"] == 360
    assert (tmp_path / "quickstart.png").stat().st_size > 10_000


def test_over_parameterize_ends_in_the_network_it_began_with(capsys: pytest.CaptureFixture[str]):
    config = over_parameterize.Config(
        widths=(2,), learning_rates=(0.1,), seeds=1, epochs=1, batch_size=359
    )
    assert over_parameterize.main(config) == 0
    printed = capsys.readouterr().out
    assert "y=conv3x3+scale(conv3x3)+scale(conv1x1)" in printed
    counts = re.findall(r"│ (plain|with branches) +│[^│]+│ (\d+)", printed)
    assert counts == [("plain", "8"), ("with branches", "8")]
    assert "one seed tells nothing" in " ".join(printed.split())
