"""What tests with host callbacks need: these run on threads that no context manager reaches."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(autouse=True, scope="session")
def quick_to_compile() -> Iterator[None]:
    """Hundreds of small programs are compiled, each to run once."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


collect_ignore = ["keras_networks.py"]  # a script for another process


@pytest.fixture
def x64_on_all_threads() -> Iterator[None]:
    """Arrays are float64 unless said otherwise, in host callbacks too."""
    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)
