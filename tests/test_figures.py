"""The figures of docs/how_it_works.md: they are drawn, and their numbers are true."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from experiments import figures

DOCS = Path(__file__).parent.parent / "docs"


def test_every_figure_is_drawn_and_shown_on_the_page(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "figures"
    figures.main(folder)
    figures.main(folder)  # a figure that is there is replaced
    names = {path.name for path in folder.iterdir()}
    assert names == {f"{name}.png" for name in figures.FIGURES}
    assert names == {path.name for path in (DOCS / "figures").iterdir()}
    assert all(path.stat().st_size > 10_000 for path in folder.iterdir())
    text = (DOCS / "how_it_works.md").read_text()
    assert all(f"](figures/{name})" in text for name in names)


def test_the_kernels_add_up() -> None:
    written, padded = figures.panels_of_kernels()
    assert [plane.shape for _, plane in written] == [(3, 3), (1, 1), (1, 1)]
    *branches, (_, merged) = padded
    assert np.allclose(sum(plane for _, plane in branches), merged, atol=1e-6)
    numbers = np.round([plane for _, plane in padded], 1)  # as they are printed
    assert np.allclose(numbers[:3].sum(0), numbers[3])


def test_the_border_is_that_of_a_sum_over_windows() -> None:
    (_, inside), (_, taps), (_, exact), (_, error) = figures.panels_of_the_border(5)
    windows = np.lib.stride_tricks.sliding_window_view(inside, (3, 3))
    assert np.allclose((windows * taps).sum((-2, -1)), exact, atol=1e-6)
    assert np.allclose(error + exact, taps.sum(), atol=1e-6)
    assert np.allclose(error[1:-1, 1:-1], 0, atol=1e-6)
    assert (np.abs(error) > 0.5).sum() == 16


def test_the_merged_taps_count_the_branches() -> None:
    *_, merged = figures.rows_of_taps().values()
    assert merged.kernel[:, 0, 0].tolist() == [1, 2, 3, 1, 1]
    assert merged.padding == ((2, 2),)
