"""The algebra is tested in float64 and under strict type promotion, everywhere."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _float64_and_strict(x64: None, strict: None) -> None:
    """Both, for each test in this directory."""
