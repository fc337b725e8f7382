"""From a wrapped `.pth` to a verified deploy file, by doing what each message says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import traverse_util

import repjax
from repjax import models
from repjax.torch import read
from repjax.torch.__main__ import main
from tests.torch.fake import Tensor, install
from tests.torch.states import state_of, variables_of

FIELDS: dict[str, Any] = {"depths": (1, 1, 1, 1), "widths": (4, 4, 4, 8), "copies": 2}


def test_a_wrapped_mobileone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = models.create("mobileone_s0", num_classes=7, **FIELDS)
    variables = variables_of(trained)
    state = state_of(trained, variables, "timm")
    tensors = {f"module.{name}": Tensor(array) for name, array in state.items()}
    checkpoint = {"epoch": 3, "model": tensors, "optimizer": {"lr": 0.1}}
    install(monkeypatch, lambda path, **options: checkpoint)
    monkeypatch.chdir(tmp_path)
    Path("best.pth").write_bytes(b"\x80\x02}q\x00.")
    sizes = [f"--set={field}={value}" for field, value in FIELDS.items()]
    arguments = ["mobileone_s0", "best.pth", "deploy.safetensors", *sizes]

    assert main(arguments) == 1
    message = capsys.readouterr().err
    command = next(line for line in message.splitlines() if "python -c" in line)
    exec(shlex.split(command)[2], {})
    (arguments[1],) = re.findall(r"this line writes (\S+):", message)

    assert main(arguments) == 1
    arguments += next(iter(re.findall(r"\((--num-classes) (\d+)\)", capsys.readouterr().err)))

    assert main(arguments) == 0
    advice = re.findall(r"\((--fuse) (--verify) writes", capsys.readouterr().out)
    arguments += advice[0]

    assert main(arguments) == 1
    arguments += re.findall(r"\((--force)\) replaces", capsys.readouterr().err)

    assert main(arguments) == 0
    assert "equal to rounding" in capsys.readouterr().out
    written = traverse_util.unflatten_dict(dict(read("deploy.safetensors")), sep="/")
    wanted = repjax.fuse_params(variables)
    jax.tree.map(np.testing.assert_array_equal, written, wanted)
