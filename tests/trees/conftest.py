"""Variables of the small network, native and deployed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.blocks.cases import random_variables
from tests.trees.networks import IMAGES, Network, on_device


@pytest.fixture(scope="session")
def exact() -> Any:
    """Random variables as float64 NumPy arrays."""
    return random_variables(Network(), IMAGES)


@pytest.fixture(scope="session")
def variables(exact: Any) -> Any:
    """The same variables as float32 JAX arrays."""
    return on_device(exact)
