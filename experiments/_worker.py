"""A contestant in a process of its own, which makes a call whenever it is told to.

Thread pools and allocators do not meet, and every framework is measured in the same way.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from experiments._contestants import CONTESTANTS, Entry

PREPARE = "prepare"
"""Instead of a contestant's name: write the files that the contestants read."""


class Worker:
    """The process of a contestant, as seen from outside.

    Args:
        entry: what it runs.
        python: the interpreter that has the framework.
        log: file for what it prints.
    """

    def __init__(self, entry: Entry, python: str, log: Path) -> None:
        self.entry, self._log = entry, log
        environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        with log.open("w") as file:
            self._process = subprocess.Popen(
                [python, "-m", "experiments._worker", json.dumps(dataclasses.asdict(entry))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                env=environment,
                text=True,
            )

    def answer(self) -> Mapping[str, Any]:
        """The next line that it sends: first what it is, then the seconds of a call.

        Raises:
            RuntimeError: it has ended; the message has its last line.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            lines = self._log.read_text(errors="replace").strip().splitlines()
            raise RuntimeError(f"{self.entry.contestant}: {lines[-1] if lines else 'ended'}")
        found: Mapping[str, Any] = json.loads(line)
        return found

    def seconds(self) -> float:
        """Have it make two calls; the time of the second, when its threads are awake."""
        assert self._process.stdin is not None
        self._process.stdin.write("call\n")
        self._process.stdin.flush()
        return float(self.answer()["seconds"])

    def close(self) -> None:
        """End the process."""
        with self._process:  # closes what is between them, and waits
            self._process.terminate()


def main(text: str) -> None:
    """Be the process: compile, tell, then a call for each line that comes in."""
    entry = Entry(**json.loads(text))
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what frameworks print goes to the log
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: entry.threads])
    if entry.contestant == PREPARE:
        from experiments import _timm

        _timm.prepare(entry)
        print(json.dumps({}), file=answers)
        return
    contestant = CONTESTANTS[entry.contestant](entry)
    for _ in range(3):
        result = contestant.run()
    outputs = np.asarray(contestant.outputs(result), np.float64)
    ready = {
        "compile_seconds": contestant.seconds,
        "note": contestant.note,
        "versions": _versions(),
        "outputs": outputs.reshape(-1)[:4000].tolist(),
    }
    print(json.dumps(ready), file=answers)
    for _ in sys.stdin:
        contestant.run()
        start = time.perf_counter()
        contestant.run()
        print(json.dumps({"seconds": time.perf_counter() - start}), file=answers)


def _versions() -> dict[str, str]:
    """Of the frameworks that this process has imported."""
    names = ("jax", "jaxlib", "flax", "torch", "timm", "onnxruntime", "openvino")
    return {name: version(name) for name in names if name in sys.modules}


if __name__ == "__main__":
    main(sys.argv[1])
