"""What a figure was measured on: device, instructions, versions, and the peak of both."""

from __future__ import annotations

import functools
import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import repjax

INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16")
"""What decides how fast a convolution is on an x86 CPU, by its name in /proc/cpuinfo."""

PACKAGES = ("jax", "jaxlib", "flax", "numpy", "torch", "timm", "onnxruntime", "openvino")


def describe(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Device, its instructions, threads, versions and flags, to stand beside every figure."""
    found = {"device": f"{jax.device_count()} x {jax.devices()[0].device_kind}"}
    found |= processor()
    found["python"] = platform.python_version()
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    found["compiler options"] = str(repjax.compiler_options() or "none known")
    if flags := os.environ.get("XLA_FLAGS"):
        found["XLA_FLAGS"] = flags
    return found


def processor() -> dict[str, str]:
    """Model of the CPU, threads that may run on it, and which instructions it has."""
    lines = _lines("/proc/cpuinfo")
    threads = str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0)
    flags = set(lines.get("flags", "").split())
    return {
        "cpu": f"{lines.get('model name') or platform.processor()}"
        + (f" (family {lines['cpu family']}, model {lines['model']})" if "model" in lines else ""),
        "threads": threads if threads != "0" else str(os.cpu_count()),
        "instructions": ", ".join(
            f"{name} {'yes' if name in flags else 'no'}" for name in INSTRUCTIONS
        )
        if flags
        else "unknown",
    }


def _lines(path: str) -> dict[str, str]:
    """Names and values of a file of such lines, the first of each name."""
    try:
        text = Path(path).read_text()
    except OSError:
        return {}
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        found.setdefault(name.strip(), value.strip())
    return found


@functools.cache
def peak(dtype: str, repeats: int = 5) -> tuple[float, float]:
    """FLOP/s of a large square matrix product, and bytes/s of a copy, on this device.

    The product is compiled with and without `repjax.compiler_options`; the faster one counts.
    A copy reads and writes an array that no cache holds. Both are measured once in a process.

    Args:
        dtype: of the operands.
        repeats: the fastest of so many calls counts.
    """
    accelerator = jax.default_backend() != "cpu"
    size = 8192 if accelerator else 2048
    square = jnp.full((size, size), 0.5, dtype)
    options: Any = ({}, repjax.compiler_options())
    product = min(
        _fastest(jax.jit(jnp.matmul, compiler_options=one or None), repeats, square, square)
        for one in options
    )
    long = jnp.zeros((2**29 if accelerator else 2**27) // square.dtype.itemsize, dtype)
    copy = _fastest(jax.jit(jnp.negative), repeats, long)
    return 2 * size**3 / product, 2 * long.nbytes / copy


def _fastest(fn: Callable[..., Any], repeats: int, *args: Any) -> float:
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        jax.block_until_ready(fn(*args))  # type: ignore[no-untyped-call]
        times.append(time.perf_counter() - start)
    return float(np.min(times[1:]))
