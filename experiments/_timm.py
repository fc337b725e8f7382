"""timm's networks with random weights: as torch modules, state dicts and ONNX files."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments._contestants import Entry


def create(name: str, state: Path | None = None) -> Any:
    """A network of timm in train form, with the arrays of an npz file if one is given."""
    try:
        import timm
    except RuntimeError:  # torchvision, without its compiled part
        _define_operators()
        import timm
    torch.manual_seed(0)
    model = timm.create_model(name)
    if state is not None:
        with np.load(state) as arrays:
            model.load_state_dict({key: torch.from_numpy(arrays[key]) for key in arrays.files})
    return model.eval()


def reparameterized(model: Any) -> Any:
    """What timm makes of it for deployment; the model itself stays as it is."""
    from timm.utils import reparameterize_model

    return reparameterize_model(model, inplace=False).eval()


def prepare(entry: Entry) -> None:
    """Write the state dict and the ONNX file of an entry, unless they are there."""
    if not entry.state.exists():
        model = create(entry.network)
        settle(model, entry.size)
        state = {key: value.numpy() for key, value in model.state_dict().items()}
        partial = entry.state.with_suffix(".partial.npz")
        np.savez(partial, **state)
        os.replace(partial, entry.state)
    if not entry.onnx.exists():
        deployed = reparameterized(create(entry.network, entry.state))
        partial = entry.onnx.with_suffix(".partial")
        images = (torch.from_numpy(entry.images),)
        torch.onnx.export(deployed, images, str(partial), dynamo=True, external_data=False)
        os.replace(partial, entry.onnx)


def settle(model: Any, size: int) -> None:
    """Give batch norms the statistics of random images, so that nothing grows or is trivial."""
    for one in model.modules():
        if isinstance(one, torch.nn.BatchNorm2d):
            one.momentum = None  # the mean over all that was seen
            torch.nn.init.uniform_(one.weight, 0.5, 1.5)
            torch.nn.init.uniform_(one.bias, -0.2, 0.2)
    model.train()
    with torch.no_grad():
        model(torch.randn(8, 3, size, size))
    model.eval()


def _define_operators() -> None:
    """What torchvision wants to be there when it is imported."""
    library = torch.library.Library("torchvision", "DEF")
    for line in (
        "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    ):
        with contextlib.suppress(RuntimeError):
            library.define(line)
    _KEPT.append(library)


_KEPT: list[Any] = []
