"""`timm`: deploy variables as the state dict that timm's re-parameterized network loads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from repjax import verify
from repjax._files import check_target
from repjax.torch import files
from repjax.torch.backwards import to_state_dict
from repjax.torch.fit import flat, inputs_of
from repjax.torch.load import load


def timm(
    path: str | Path,
    model: nn.Module,
    variables: Mapping[str, Any],
    *,
    naming: str = "timm",
    force: bool = False,
) -> None:
    """Write deploy variables as the state dict that timm's re-parameterized network loads.

    There, ``timm.utils.reparameterize_model(timm.create_model(...))`` makes the network, and
    ``load_state_dict(safetensors.torch.load_file(path), strict=True)`` loads the file. See
    `repjax.torch.to_state_dict` for norms and scales that timm keeps. It counts as written
    once the variables that it is loaded into are the same, or, where timm has a bias only as
    a shift in front of a map, make the same network within `verify`'s tolerance.

    Args:
        path: path of the file, `.safetensors` or `.npz`.
        model: a network of `repjax.models`, in either form.
        variables: those of ``model.deploy()``, as `repjax.fuse_params` makes them.
        naming: "timm", or "original" for the official repository's network.
        force: replace a file that is there already.

    Raises:
        FileExistsError: the file exists, and `force` is false.
        OSError: it cannot be written.
        ValueError: as `repjax.torch.to_state_dict`, or what was read back is another network.
        ModuleNotFoundError: the safetensors library is missing.

    Example:
        >>> import repjax
        >>> model = repjax.models.create("mobileone_s0")
        >>> timm("mobileone_s0.safetensors", model, deployed)  # doctest: +SKIP
    """
    path = Path(path)
    check_target(path, force=force)
    state, twin = to_state_dict(model, variables, naming=naming), model.clone(deployed=True)

    def check(read: Mapping[str, Any]) -> None:
        _require_same(path, twin, variables, load(twin, read, naming=naming))

    files.write(path, state, force=force, check=check)


def _require_same(path: Path, twin: Any, variables: Mapping[str, Any], again: Any) -> None:
    given, read = flat(variables), flat(again)
    if all(_equal(read[place], given[place]) for place in given):
        return
    images = np.random.default_rng(0).normal(size=inputs_of(twin).shape)
    verdict = verify(twin.apply, variables, twin.apply, again, jnp.asarray(images, jnp.float32))
    if not verdict:
        raise ValueError(f"{path}: is not written, it was read back as another network:\n{verdict}")


def _equal(found: Any, given: Any) -> bool:
    return bool(np.array_equal(np.asarray(found), np.asarray(given, found.dtype)))
