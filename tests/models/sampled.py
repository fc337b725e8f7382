"""Networks of a table of which one of each plan is counted by default, all in the slow suite."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def sampled(names: Iterable[str], *default: str) -> list[Any]:
    """The names, all but some marked slow."""
    return [n if n in default else pytest.param(n, marks=pytest.mark.slow) for n in names]
