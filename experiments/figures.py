"""Draw the figures of docs/how_it_works.md: kernels that add up, where taps land, the border.

Run from the repository's root: ``python -m experiments.figures``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console

from repjax._files import replacing
from repjax.algebra import Conv, add, bias_map, compose, compose_with_bias_map, embed, identity

TARGET = Path("docs/figures")
Array = np.ndarray[Any, Any]
Panels = Sequence[tuple[str, Array]]


def panels_of_kernels() -> tuple[Panels, Panels]:
    """The three branches of a block as they are, then as 3x3 kernels with their sum."""
    random = np.random.default_rng(5)
    branches = {
        "conv3x3": Conv(random.integers(-9, 10, (3, 3, 1, 1)) / 10, padding=1),
        "conv1x1": Conv(np.full((1, 1, 1, 1), 0.4)),
        "x itself": identity(1),
    }
    merged = add(*branches.values())
    written = [(name, _plane(conv)) for name, conv in branches.items()]
    padded = [(name, _plane(embed(conv, 3, low=1))) for name, conv in branches.items()]
    signs = ("", "+  ", "+  ", "=  ")
    both = [*padded, ("one kernel", _plane(merged))]
    return written, [(sign + name, plane) for sign, (name, plane) in zip(signs, both, strict=True)]


def panels_of_the_border(size: int = 6) -> Panels:
    """A 1x1 with bias before a padded 3x3: its bias map, and what the map makes of the image."""
    random = np.random.default_rng(2)
    bias = np.ones(1)
    first = Conv(np.ones((1, 1, 1, 1)), bias)
    second = Conv(random.integers(1, 10, (3, 3, 1, 1)) / 10, padding=1)
    _, found = compose_with_bias_map(first, second)
    assert found is not None
    inside = np.pad(np.asarray(bias_map(bias).of_ones(size))[..., 0], 1)
    everywhere = compose(first, second.replace(padding=0)).bias
    assert everywhere is not None
    constant = np.full((size, size), float(everywhere[0]))
    exact = np.asarray(found.of_ones(size))[..., 0]
    return [
        ("the bias, and the zeros around it", inside),
        ("the bias map", _plane(found)),
        ("what it adds to the output", exact),
        ("a constant bias is wrong by", constant - exact),
    ]


def rows_of_taps() -> Mapping[str, Conv]:
    """Three branches along one axis, and the kernel that they merge into."""
    branches = {
        "3 taps, padding 1": Conv(np.ones((3, 1, 1)), padding=1),
        "3 taps, dilation 2, padding 2": Conv(np.ones((3, 1, 1)), padding=2, dilation=2),
        "2 taps, padding (1, 0)": Conv(np.ones((2, 1, 1)), padding=[(1, 0)]),
    }
    return {**branches, "merged: 5 taps, padding 2": add(*branches.values())}


def draw_kernels() -> Figure:
    """Kernels of the branches above, the same as 3x3 kernels and their sum below."""
    written, padded = panels_of_kernels()
    figure = Figure(figsize=(8.4, 4.5), layout="constrained")
    above, below = figure.subfigures(2, 1, squeeze=False)[:, 0]
    above.suptitle("as they are trained", fontsize=11)
    below.suptitle("as 3x3 kernels", fontsize=11)
    places = above.subplots(1, 4)
    for place, (title, plane) in zip(places, written, strict=False):
        _show(place, title, plane, limit=1.5, frame=3)
    places[3].axis("off")
    for place, (title, plane) in zip(below.subplots(1, 4), padded, strict=True):
        _show(place, title, plane, limit=1.5)
    return figure


def draw_taps() -> Figure:
    """A row of pixels per branch: where its taps read for one output, and what they add up to."""
    figure = Figure(figsize=(8.4, 2.6), layout="constrained")
    place = figure.subplots()
    pixels = range(-3, 4)
    rows = rows_of_taps()
    for row, conv in enumerate(rows.values()):
        (axis,) = conv.axes
        taps = {-axis.low + tap * axis.dilation: tap for tap in range(axis.taps)}
        last = row == len(rows) - 1
        for pixel in pixels:
            color = "white" if pixel not in taps else "#d95f4b" if last else "#6b9ac4"
            place.barh(row, 0.9, 0.8, pixel - 0.45, color=color, edgecolor="0.6")
            if pixel in taps:
                count = f"\n({conv.kernel[taps[pixel], 0, 0]:.0f} added)" if last else ""
                text = f"tap {taps[pixel]}{count}"
                place.text(pixel, row, text, ha="center", va="center", fontsize=8)
    place.set_yticks(range(len(rows)), list(rows))
    names = [f"x[o{pixel:+d}]" if pixel else "x[o]" for pixel in pixels]
    place.set_xticks(pixels, names)
    place.xaxis.tick_top()
    place.tick_params(length=0)
    place.spines[:].set_visible(False)
    place.invert_yaxis()
    return figure


def draw_border() -> Figure:
    """The bias inside the padding, its map, what the map adds, and the usual mistake."""
    figure = Figure(figsize=(10.4, 3.0), layout="constrained")
    panels = panels_of_the_border()
    limit = max(float(np.abs(plane).max()) for _, plane in panels)
    for place, (title, plane) in zip(figure.subplots(1, 4), panels, strict=True):
        _show(place, title, plane, limit=limit, frame=8)
    return figure


FIGURES: Mapping[str, Callable[[], Figure]] = {
    "kernels": draw_kernels,
    "taps": draw_taps,
    "border": draw_border,
}


def _plane(conv: Conv) -> Array:
    return np.asarray(jnp.squeeze(conv.kernel, (-2, -1)))


def _show(place: Axes, title: str, plane: Array, *, limit: float, frame: int = 0) -> None:
    """Numbers on colors, white at zero; a frame gives panels of several sizes equal squares."""
    place.imshow(plane, cmap="RdBu_r", vmin=-limit, vmax=limit)
    for (row, column), value in np.ndenumerate(plane):
        text = f"{value:.1f}" if abs(value) > 1e-6 else "0"
        color = "white" if abs(value) > 0.65 * limit else "black" if text != "0" else "0.6"
        place.text(column, row, text, ha="center", va="center", color=color, fontsize=9)
    place.set_title(title, fontsize=10)
    place.set_xticks([])
    place.set_yticks([])
    for axis, taps in zip("yx", plane.shape, strict=True):
        if frame:
            edge = (frame - taps) / 2 + 0.5
            limits = (taps - 1 + edge, -edge) if axis == "y" else (-edge, taps - 1 + edge)
            place.set(**{f"{axis}lim": limits})
            place.spines[:].set_visible(False)


def main(output: Path = TARGET) -> None:
    """Write every figure as a PNG file.

    Args:
        output: folder of the files.
    """
    output.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"font.family": "DejaVu Sans"}):
        for name, draw in FIGURES.items():
            with replacing(output / f"{name}.png", force=True) as path:
                draw().savefig(path, format="png", dpi=120, metadata={"Software": None})
    Console().print(f"written: {', '.join(f'{output}/{name}.png' for name in FIGURES)}")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
