"""As much of PyTorch as the printed line for a pickle uses."""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import safetensors.numpy


class Tensor:
    """An array that can be saved only when it is detached."""

    def __init__(self, array: np.ndarray, *, plain: bool = False) -> None:
        self.array, self.plain = array, plain

    def detach(self) -> Tensor:
        return Tensor(self.array, plain=True)

    def clone(self) -> Tensor:
        return Tensor(self.array, plain=self.plain)

    def contiguous(self) -> Tensor:
        return Tensor(np.ascontiguousarray(self.array), plain=self.plain)


def install(monkeypatch: pytest.MonkeyPatch, load: Callable[..., Any]) -> None:
    """Stand in for `torch` and `safetensors.torch`; `load` is `torch.load`."""

    def save_file(tensors: dict[str, Tensor], path: str) -> None:
        assert all(tensor.plain for tensor in tensors.values())
        arrays = {name: tensor.array for name, tensor in tensors.items()}
        safetensors.numpy.save_file(arrays, path)

    torch: Any = types.ModuleType("torch")
    torch.load, torch.is_tensor = load, lambda value: isinstance(value, Tensor)
    monkeypatch.setitem(sys.modules, "torch", torch)
    library: Any = types.ModuleType("safetensors.torch")
    library.save_file = save_file
    monkeypatch.setitem(sys.modules, "safetensors.torch", library)
    monkeypatch.setattr(importlib.import_module("safetensors"), "torch", library, raising=False)
