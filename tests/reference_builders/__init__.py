"""Reference cases to our models: one file per family, found by the folder's listing.

Each file has a dict `BUILDERS` from (family, class) of a case's `meta` to a function of the
`meta` that returns a `Case`; the class `ANY` stands for every class of a family. A builder
goes by `meta` alone (class, constructor, geometry), never by file names or values, so that
other members of the family pass unchanged.
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
        naming: of its weights in `repjax.torch`; None tries all.
        convolutions: in the deploy form, by the architecture (matrix products do not count).
        norms: batch norms left in the deploy form, by the architecture.
        loads_deploy: whether the official deploy form can be loaded as well.
    """

    model: nn.Module
    naming: str | None
    convolutions: int
    norms: int = 0
    loads_deploy: bool = True


Builder = Callable[[Meta], Case]
ANY = "*"


def case_of(meta: Meta) -> Case:
    """The case that a `meta` describes.

    Raises:
        KeyError: no builder knows its class.
    """
    family, kind = meta["family"], meta["class"]
    known = builders()
    found = known.get((family, kind)) or known.get((family, ANY))
    if found is None:
        raise KeyError(f"no builder of {family}: {kind}; known are {sorted(known)}")
    return found(meta)


@functools.cache
def builders() -> dict[tuple[str, str], Builder]:
    """All builders by family and class; the class `ANY` stands for all that are not named."""
    found: dict[tuple[str, str], Builder] = {}
    for module in pkgutil.iter_modules(__path__):
        found |= importlib.import_module(f"{__name__}.{module.name}").BUILDERS
    return found


def pair(value: Any) -> Any:
    """A geometry argument of PyTorch (number or list) as ours."""
    return tuple(value) if isinstance(value, list) else value
