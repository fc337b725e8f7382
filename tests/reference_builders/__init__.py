"""Reference cases to our models: one file per family, found by the folder's listing.

Each file has a dict `BUILDERS` from (family, class) of a case's `meta` to a function of the
`meta` that returns a `Case`. A builder goes by `meta` alone (constructor, geometry), never by
file names or values, so that other members of the family pass unchanged.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn

Meta = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Case:
    """What a builder makes of a reference case.

    Args:
        model: in train form, with float64 parameters.
        naming: of its weights in `repjax.torch`.
        convolutions: in the deploy form, by the architecture (matrix products do not count).
        norms: batch norms left in the deploy form, by the architecture.
        loads_deploy: whether the official deploy form can be loaded as well.
    """

    model: nn.Module
    naming: str
    convolutions: int
    norms: int = 0
    loads_deploy: bool = True


@functools.cache
def builders() -> dict[tuple[str, str], Callable[[Meta], Case]]:
    """All builders by (family, class)."""
    found: dict[tuple[str, str], Callable[[Meta], Case]] = {}
    for module in pkgutil.iter_modules(__path__):
        found |= importlib.import_module(f"{__name__}.{module.name}").BUILDERS
    return found


def pair(value: Any) -> Any:
    """A geometry argument of PyTorch (number or list) as ours."""
    return tuple(value) if isinstance(value, list) else value
