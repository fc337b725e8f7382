"""Pickles are never opened here: the line that turns one into a safetensors file elsewhere."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from repjax.torch.wrappers import ENTRIES

SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".pkl", ".tar")


def message(path: str | Path) -> str:
    """What to do with a pickle, with a line to paste into a shell.

    Args:
        path: path of the pickle.

    Example:
        >>> print(message("weights/a.pth").splitlines()[0])
        weights/a.pth: pickles are not opened, since they can run any code. Where torch and
    """
    target = Path(path).with_suffix(".safetensors")
    return (
        f"{path}: pickles are not opened, since they can run any code. Where torch and\n"
        f"safetensors are installed, this line writes {target}:\n\n"
        f"  python -c {shlex.quote(code(path, target))}\n\n"
        "It takes the state dict out of what is around it (moving averages where there are both).\n"
        "Then give that file."
    )


def code(source: str | Path, target: str | Path) -> str:
    """A program that converts a pickle, for a machine with PyTorch; an existing file is kept.

    Args:
        source: path of the pickle.
        target: path of the safetensors file to write.
    """
    entries = ", ".join(json.dumps(entry) for entry in ENTRIES)
    old, new = (json.dumps(str(path), ensure_ascii=False) for path in (source, target))
    return "; ".join(
        (
            "import torch, safetensors.torch",
            f"inner = lambda d: next((inner(d[k]) for k in ({entries}) "
            "if isinstance(d.get(k), dict) and d[k]), d)",
            f'd = inner(torch.load({old}, map_location="cpu", weights_only=True))',
            "d = {k: v.detach().clone().contiguous() for k, v in d.items() if torch.is_tensor(v)}",
            f'open({new}, "x").close()',
            f"safetensors.torch.save_file(d, {new})",
        )
    )
