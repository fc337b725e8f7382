"""What configurations share: one entry per stage, tables of widths, gates, drop-path rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from repjax.blocks.fields import require_whole
from repjax.blocks.squeeze_excite import rounded_width

BASE_WIDTHS = (64, 128, 256, 512)


def widths(*multipliers: float) -> tuple[int, ...]:
    """Channels per stage from the published multipliers of 64, 128, 256 and 512.

    Example:
        >>> widths(0.75, 0.75, 0.75, 2.5)
        (48, 96, 192, 1280)
    """
    return tuple(int(base * m) for base, m in zip(BASE_WIDTHS, multipliers, strict=True))


def doubled_widths(first: int, stages: int = 4) -> tuple[int, ...]:
    """Channels per stage, each twice those of the stage before.

    Example:
        >>> doubled_widths(48)
        (48, 96, 192, 384)
    """
    return tuple(first * 2**stage for stage in range(stages))


def gate_width(wanted: float, divisor: int = 0) -> int:
    """Hidden channels of a squeeze-excite.

    Args:
        wanted: their number, before rounding; 0 means none and stays 0.
        divisor: 0 rounds down to a whole number, as the original codes do; otherwise to the
            nearest multiple, as timm does.

    Example:
        >>> gate_width(60.5), gate_width(60.5, 8), gate_width(0, 8)
        (60, 64, 0)
    """
    return rounded_width(wanted, divisor, round_limit=0.0) if wanted and divisor else int(wanted)


def drop_path_rates(last: float, depths: Sequence[int]) -> tuple[tuple[float, ...], ...]:
    """Rates of stochastic depth per stage and block, rising linearly from 0.

    Args:
        last: rate of the last block.
        depths: blocks per stage.

    Example:
        >>> drop_path_rates(0.5, (1, 2, 3))
        ((0.0,), (0.1, 0.2), (0.3, 0.4, 0.5))
    """
    steps = max(sum(depths) - 1, 1)
    starts = [sum(depths[:stage]) for stage in range(len(depths))]
    return tuple(
        tuple(last * (start + index) / steps for index in range(depth))
        for start, depth in zip(starts, depths, strict=True)
    )


def require_stages(config: Any, *names: str) -> None:
    """Refuse a configuration whose fields do not have one entry for every stage.

    Args:
        config: a configuration with the fields `depths`, `widths` and those named.
        *names: other fields with one entry per stage.

    Raises:
        ValueError: depths or widths are no whole numbers, or a field has another number of
            entries than `depths`.
    """
    counts = {}
    for name in ("widths", "depths", *names):
        value = getattr(config, name)
        if not isinstance(value, tuple | list) or not value:
            raise ValueError(f"{name} has one entry per stage, such as (2, 4); found {value!r}")
        counts[name] = len(value)
    for name, least in (("widths", 1), ("depths", 0)):
        for number in getattr(config, name):
            require_whole(f"every entry of {name}", number, least)
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise ValueError(
            f"one entry per stage expected in {', '.join(counts)}; found numbers of entries: "
            f"{found}; override all of them for another number of stages"
        )
