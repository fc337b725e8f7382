"""Runs of the command line in processes of their own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from experiments.train import log

REPOSITORY = Path(__file__).parents[2]


def start(arguments: list[str], output: Path, devices: int = 8) -> subprocess.Popen[bytes]:
    """``python -m experiments.train`` with these arguments, what it prints in files.

    Args:
        arguments: of the command line.
        output: folder of the run.
        devices: CPU devices that the process sees.
    """
    output.mkdir(parents=True, exist_ok=True)
    number = 0 if "--process" not in arguments else arguments[arguments.index("--process") + 1]
    with (output / f"printed{number}").open("wb") as printed:
        return subprocess.Popen(
            [sys.executable, "-m", "experiments.train", *arguments, "--output", str(output)],
            cwd=REPOSITORY,
            env=os.environ | {"JAX_NUM_CPU_DEVICES": str(devices)},
            stdout=printed,
            stderr=subprocess.STDOUT,
        )


def printed(output: Path, number: int = 0) -> str:
    """What a process has printed."""
    return (output / f"printed{number}").read_text()


def wait_for_step(process: subprocess.Popen[bytes], output: Path, step: int) -> None:
    """Until the metrics of a step are written; a process that ends before is a failure."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if any(record["step"] >= step for record in log.read(output / "metrics.jsonl")):
            return
        assert process.poll() is None, printed(output)
        time.sleep(0.01)
    raise TimeoutError(printed(output))


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
