"""Which form and which naming a state dict has: the ones that share most names with it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
from flax import traverse_util

from repjax.torch.names import Names, names_of

ArrayPath = tuple[str, ...]
Template = Mapping[ArrayPath, jax.ShapeDtypeStruct]
IGNORED = "num_batches_tracked"


@dataclasses.dataclass(frozen=True)
class Fit:
    """A state dict beside the variables of a model in one form, by one table of names.

    Args:
        naming: name of the table.
        names: the table.
        deployed: whether the form is the deploy form.
        template: shape and dtype of each of our arrays, by collection and path.
        keys: name in the state of each, None where the table has none.
        state: what is to be loaded.
    """

    naming: str
    names: Names
    deployed: bool
    template: Template
    keys: Mapping[ArrayPath, str | None]
    state: Mapping[str, Any]

    @property
    def missing(self) -> list[str]:
        """Names that our arrays need and the state does not have."""
        return [key or "/".join(path) for path, key in self.keys.items() if key not in self.state]

    @property
    def unexpected(self) -> list[str]:
        """Names of the state that none of our arrays needs."""
        return sorted(set(self.state) - set(self.keys.values()))

    @property
    def share(self) -> float:
        """Names that both sides know, as a share of those that either knows."""
        wanted = set(self.keys.values())
        return len(wanted & set(self.state)) / max(1, len(wanted | set(self.state)))

    @property
    def words(self) -> str:
        """The naming and the form, as messages write them."""
        return f"{self.naming} naming, {'deploy' if self.deployed else 'train'} form"


def best_fit(
    model: nn.Module,
    state: Mapping[str, Any],
    naming: str | None,
    inputs: Any,
    *,
    without_head: bool,
) -> Fit:
    """The form and naming that have the largest share of names in common with the state.

    Args:
        model: a network or block with names in `repjax.torch`.
        state: names to arrays.
        naming: one of the model's namings; None tries all.
        inputs: what the model is applied to, shapes are enough.
        without_head: leave the head out of both.

    Raises:
        ValueError: the model has no such naming.
    """
    tables = names_of(type(model))
    if naming is not None and naming not in tables:
        raise ValueError(f"no naming {naming!r} of {type(model).__name__}; found {list(tables)}")
    chosen = {naming: tables[naming]} if naming is not None else tables
    used = View(state, (name for name in state if name.split(".")[-1] != IGNORED))
    fits = []
    for deployed in (False, True) if hasattr(model, "deployed") else (False,):
        form = model.clone(deployed=deployed) if hasattr(model, "deployed") else model
        template = flat(jax.eval_shape(form.init, jax.random.key(0), inputs))
        for name, table in chosen.items():
            names = table if isinstance(table, Names) else table(model)
            fit = _fit(name, names, deployed, template, used)
            fits.append(_without_head(fit) if without_head else fit)
    return max(fits, key=lambda fit: fit.share)


def _fit(
    naming: str, names: Names, deployed: bool, template: Template, state: Mapping[str, Any]
) -> Fit:
    if names.prepare is not None:
        state = names.prepare(dict(state))
    if deployed:
        state = names.deploy_form(state)
    keys = {path: names.key(path[1:]) for path in template}
    return Fit(naming, names, deployed, template, keys, state)


def _without_head(fit: Fit) -> Fit:
    body = {p: leaf for p, leaf in fit.template.items() if not is_head(fit.names, p)}
    heads = {key for path, key in fit.keys.items() if path not in body}
    return dataclasses.replace(
        fit,
        template=body,
        keys={path: fit.keys[path] for path in body},
        state=View(fit.state, (name for name in fit.state if name not in heads)),
    )


def is_head(names: Names, path: ArrayPath) -> bool:
    """Whether the array at a path depends on the number of classes."""
    return re.fullmatch(names.head, "/".join(path[1:])) is not None


def flat(variables: Any) -> dict[ArrayPath, Any]:
    """The arrays of a variables tree by collection and path, unboxed."""
    plain = nn.meta.unbox(variables)
    leaves: dict[ArrayPath, Any] = traverse_util.flatten_dict(plain)  # type: ignore[no-untyped-call]
    return leaves


class View(Mapping[str, Any]):
    """Some names of a mapping, whose arrays are read only when asked for."""

    def __init__(self, whole: Mapping[str, Any], names: Iterator[str]) -> None:
        self._whole = whole
        self._names = dict.fromkeys(names)

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            raise KeyError(name)
        return self._whole[name]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
