"""What every test shares: eight CPU devices, hypothesis settings, the two strict modes of JAX.

`pytest --hypothesis-profile=explore` draws other and many more examples than CI does.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

from jaxlib.version import __version_info__

# Before JAX starts a backend: tests compile much and run little. An unknown flag ends the process.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    " --xla_cpu_parallel_codegen_split_count=1"
    + (" --xla_cpu_use_fusion_emitters=false" if __version_info__[:2] == (0, 10) else ""),
)

import hypothesis
import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
gc.set_threshold(100_000, 20, 20)  # tracing makes and drops millions of small objects

hypothesis.settings.register_profile(
    "repeatable",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=60,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile(
    "explore",
    parent=hypothesis.settings.get_profile("repeatable"),
    derandomize=False,
    max_examples=3000,
)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture
def x64() -> Iterator[None]:
    """Arrays are float64 unless said otherwise."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def strict() -> Iterator[None]:
    """JAX refuses to promote types that the code did not convert itself."""
    with jax.numpy_dtype_promotion("strict"):
        yield
