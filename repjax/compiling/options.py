"""`compiler_options`: what makes convolutions fast on this backend, found by trial."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

Options = dict[str, bool | int | str]

NO_YNNPACK: Options = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INVALID"}
"""XLA:CPU without fusion into YNNPACK; with it, nothing is left for oneDNN."""

_CANDIDATES: dict[str, tuple[tuple[Options, str], ...]] = {
    "cpu": (
        (
            {"xla_cpu_experimental_onednn_custom_call": True, **NO_YNNPACK},
            "__onednn$convolution",
        ),
    ),
}
"""For each platform, options and the call that a compiled convolution must hold with them."""


def compiler_options(platform: str | None = None) -> Options:
    """The XLA options with which convolutions are fast on a platform.

    Give them to ``jax.jit(f, compiler_options=...)``, for inference and for training steps.
    They are found by trial, once per process and in under a second: a tiny program is
    compiled with them and has to hold the call that is expected. On the CPU and jaxlib 0.11
    or newer, convolutions and products become calls of oneDNN, with bias, activation and
    residual inside. Every compile with them prints one log line of level E, "Unsupported
    fusion type: 0", which is harmless; ``TF_CPP_MIN_LOG_LEVEL=3`` in the environment, set
    before JAX is imported, silences it.

    Args:
        platform: "cpu", "gpu", ...; by default that of ``jax.default_backend()``.

    Returns:
        A new dictionary, empty where no options are known or where this version of jaxlib
        does not accept them or does nothing with them.

    Example:
        >>> step = jax.jit(lambda x: x + 1, compiler_options=compiler_options() or None)
        >>> int(step(1))
        2
    """
    return dict(_found(platform or jax.default_backend()))


@functools.lru_cache
def _found(platform: str) -> Options:
    for options, call in _CANDIDATES.get(platform, ()):
        if has_effect(options, call, platform):
            return options
    return {}


def expected_calls(platform: str) -> list[str]:
    """The calls that programs hold where options have their effect."""
    return [call for _, call in _CANDIDATES.get(platform, ())]


def has_effect(options: Options, call: str, platform: str) -> bool:
    """Whether a small convolution, compiled with these options, holds this call."""
    try:
        device = jax.sharding.SingleDeviceSharding(jax.local_devices(backend=platform)[0])
        shapes = [(1, 8, 8, 8), (3, 3, 8, 8)]
        struct: Any = jax.ShapeDtypeStruct
        specs = [struct(shape, jnp.float32, sharding=device) for shape in shapes]
        compiled = jax.jit(_convolution, compiler_options=options).lower(*specs).compile()
        return call in (compiled.as_text() or "")
    except (RuntimeError, ValueError, TypeError, NotImplementedError):  # unknown options
        return False


def _convolution(x: jax.Array, kernel: jax.Array) -> Any:
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)
