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


MISSING = {
    "test_a_pool_over_the_whole_map_fits_every_resolution[conv-Flax]": "a pool of one tap",
    "test_a_pool_that_happens_to_cover_the_map": "it ties the plan to that size",
    "test_what_is_legal_for_every_size_is_merged[1, h, w, 4-a head]": "a symbolic mean",
    "test_what_is_legal_for_every_size_is_merged[b, h, w, 4-a head]": "a symbolic mean",
    "test_what_depends_on_the_size_is_replayed_with_that_reason": "a symbolic size in the reason",
    "test_symbolic_sizes[2, h, 8, 4]": "a mean over symbolic sizes",
    "test_symbolic_sizes[2, h, w, 4]": "a mean over symbolic sizes",
    "test_symbolic_sizes[b, h, w, 4]": "a mean over symbolic sizes",
    "test_sums_of_different_inputs_are_said_to_be_that": "this reason is not told apart yet",
    "test_untrue_reasons_are_not_given[layer norm]": "its mean is told of",
    "test_untrue_reasons_are_not_given[layer norm by hand]": "its mean is told of",
    "test_expanded_network[26]": "exact, with three convolutions where two are known",
    "test_a_permutation_before_the_convolution_goes_into_it": "a shuffle in front stays",
}
"""What the second edition of the tracing door still lacks."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is known to be missing, so that the rest stays green."""
    for item in items:
        if item.name in MISSING:
            item.add_marker(pytest.mark.xfail(reason=MISSING[item.name], strict=False))
