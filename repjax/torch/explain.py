"""Why a state dict does not fit: a few lines that name the reason and the option that helps."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax

from repjax import models
from repjax.torch.arrays import is_kernel, same_map, theirs
from repjax.torch.fit import Fit, best_fit, is_head
from repjax.torch.folds import FoldError

SHOWN = 4  # problems of one kind in a message
FEW = 0.1  # share of wrong arrays below which a file is taken for a damaged one of the model
OWN = 0.5  # share of names in common with the model that makes a file one of its family
ALIKE = 0.2  # the same for another family, where its share is the largest
LOG = logging.getLogger("repjax.torch")


def explain(model: nn.Module, fit: Fit, problems: list[str], inputs: Any) -> str:
    """The error message for a state dict that does not fit a model.

    Args:
        model: the network or block.
        fit: the form and naming that fit best.
        problems: of this fit, one line each.
        inputs: what the model is applied to.
    """
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    lines = [f"the state dict does not fit {named(model)}, {count} ({fit.words})"]
    if fit.checkpoint.words:
        lines.append(f"  it was taken out of {fit.checkpoint.words}")
    lines += [f"  {reason}" for reason in reasons(model, fit, inputs)]
    shown = _some(problems)
    lines += [f"  {problem}" for problem in shown]
    if len(shown) < len(problems):
        lines.append(f"  and {len(problems) - len(shown)} more; the error's `problems` has all")
    return "\n".join(lines)


def _some(problems: list[str]) -> list[str]:
    """A few problems of each kind."""
    kinds: dict[str, list[str]] = {"missing": [], "unexpected": [], "": []}
    for problem in problems:
        word = problem.rsplit(": ", 1)[-1]
        kinds[word if word in kinds else ""].append(problem)
    if len(problems) <= 3 * SHOWN:
        return problems
    return [problem for kind in kinds.values() for problem in kind[:SHOWN]]


def reasons(model: nn.Module, fit: Fit, inputs: Any) -> list[str]:
    """What the state dict is instead, as far as that is known, and the option to give."""
    if any("/" in name for name in fit.checkpoint.state):
        return ["its names are paths of repjax variables, which need no conversion"]
    if not isinstance(model, models.Network):
        return []
    found = _variant(model, fit, inputs)
    if found is not None:
        return found
    headless = _fits(model, fit, inputs, without_head=True)
    if headless is not None:
        heads = [key for path, key in fit.keys.items() if is_head(fit.names, path)]
        other = "another head" if any(key in fit.state for key in heads) else "no head"
        return [f"it has {other}: new_head=jax.random.key(0) (--new-head 0) makes one"]
    return _published(model, fit, inputs)


def _variant(model: models.Network, fit: Fit, inputs: Any) -> list[str] | None:
    """Other classes, channels or heads with which all of it fits."""
    classes, channels = _classes(model, fit), _channels(model, fit)
    heads = getattr(getattr(model, "config", None), "heads", None)
    options: list[tuple[dict[str, Any], dict[str, Any], list[str]]] = []
    for other in (heads, {1: 2, 2: 1}.get(heads) if heads else None):
        fields: dict[str, Any] = {}
        lines = []
        if classes != model.num_classes:
            fields["num_classes"] = classes
            lines.append(
                f"it has {classes} classes, the model {model.num_classes}: num_classes={classes} "
                f"(--num-classes {classes}) takes them,"
                " new_head=jax.random.key(0) (--new-head 0) makes another head"
            )
        if channels != model.in_channels:
            plural = "s" * (channels > 1)
            fields["in_channels"] = channels
            lines.append(
                f"it is for images of {channels} channel{plural}, the model for "
                f"{model.in_channels}: in_channels={channels} (--in-channels {channels}) takes it"
            )
        changes = {}
        if other != heads and other is not None:
            changes["heads"] = other
            lines.append(
                f"it has {other} head{'s' * (other > 1)}, the model {heads}: heads={other} "
                f"(--set heads={other}) takes it"
            )
        options.append((fields, changes, lines))
    for fields, changes, lines in options:
        if lines and _fits(_changed(model, fields, changes), fit, _of_channels(inputs, channels)):
            return lines
    return None


def _changed(model: Any, fields: dict[str, Any], changes: dict[str, Any]) -> models.Network:
    if changes:
        fields = {**fields, "config": dataclasses.replace(model.config, **changes)}
    changed: models.Network = model.clone(**fields)
    return changed


def _of_channels(inputs: Any, channels: int) -> Any:
    shape = (*inputs.shape[:-1], channels)
    return jax.ShapeDtypeStruct(shape, inputs.dtype)  # type: ignore[no-untyped-call]


def _classes(model: models.Network, fit: Fit) -> int:
    """Classes of the state's head, the model's where it has none."""
    for path, key in fit.keys.items():
        if is_head(fit.names, path) and path[-1] in ("kernel", "bias") and key in fit.state:
            shape = _shape(fit, key)
            if shape[:1] != theirs(path[-1], fit.template[path].shape)[:1]:
                return shape[0] if shape else model.num_classes
    return model.num_classes


def _channels(model: models.Network, fit: Fit) -> int:
    """Channels of the state's images, the model's where they are the same."""
    for path, key in fit.keys.items():
        if is_kernel(path[-1]) and key in fit.state:
            shape, wanted = _shape(fit, key), theirs(path[-1], fit.template[path].shape)
            others = shape[:1] + shape[2:] == wanted[:1] + wanted[2:]
            if others and wanted[1] == model.in_channels != shape[1]:
                return shape[1]
    return model.in_channels


def _shape(fit: Fit, key: str | None) -> tuple[int, ...]:
    try:
        return tuple(getattr(fit.state[key or ""], "shape", ()))
    except FoldError:
        return ()


def _fits(
    model: nn.Module,
    fit: Fit,
    inputs: Any,
    *,
    without_head: bool = False,
    forms: tuple[bool, ...] = (False, True),
) -> Fit | None:
    """The fit of a model by names and shapes, None where something does not fit."""
    other = best_fit(model, fit.checkpoint, None, inputs, without_head=without_head, forms=forms)
    if other.missing or other.unexpected:
        return None
    return None if _misshapen(other) else other


def _misshapen(fit: Fit) -> int:
    """How many arrays have another shape than ours."""
    pairs = [(path, fit.keys[path], leaf) for path, leaf in fit.template.items()]
    found = ((p, _shape(fit, key), leaf) for p, key, leaf in pairs if key in fit.state)
    return sum(not same_map(shape, theirs(p[-1], leaf.shape)) for p, shape, leaf in found)


def _published(model: models.Network, fit: Fit, inputs: Any) -> list[str]:
    """The published network that the state dict is of, or at least its family."""
    wrong = len(fit.missing) + len(fit.unexpected) + _misshapen(fit)
    if wrong < FEW * len(fit.template):
        return []
    LOG.info("looking for the published network that the state dict is of")
    own = _known(fit)
    if own >= OWN:
        if named(model) not in models.names():
            return []  # of a size of its own, which no published one is
        found = _member(type(model), fit.deployed, fit, inputs)
        if found:
            return found
    fits = list(_families(model, fit, inputs))
    family, best = max(fits, key=lambda pair: _known(pair[1]), default=(type(model), fit))
    if _known(best) > max(ALIKE, own - ALIKE):
        found = _member(family, best.deployed, fit, inputs)
        if found:
            return found
    if max(own, _known(best)) < ALIKE:
        return ["hardly any name is one of a network of repjax.models"]
    words = "another family" if _known(best) > own else "another size"
    family = family if _known(best) > own else type(model)
    return [f"it is of {words}, a {family.__name__} of a size that is not published"]


def _member(family: type, deployed: bool, fit: Fit, inputs: Any) -> list[str]:
    """The published network of a family that the state dict is of."""
    for name in models.names():
        other = models.create(name, in_channels=inputs.shape[-1])
        if type(other) is family and _fits(
            other, fit, inputs, without_head=True, forms=(deployed,)
        ):
            return [f"it is of {name}: repjax.models.create({name!r})"]
    return []


def _families(model: nn.Module, fit: Fit, inputs: Any) -> Iterator[tuple[type, Fit]]:
    """One network of each other family, with its fit."""
    networks = (models.create(name) for name in models.names())
    for kind, members in itertools.groupby(networks, type):
        if kind is not type(model):
            yield kind, best_fit(next(members), fit.checkpoint, None, inputs, without_head=True)


def _known(fit: Fit) -> float:
    """Names in common, as a share of the smaller side's: depths may differ."""
    common = len(fit.template) - len(fit.missing)
    return common / max(1, min(len(fit.template), len(fit.state)))


def named(model: Any) -> str:
    """The published name of a network, otherwise its class."""
    for name in models.names():
        other: Any = models.create(name)
        if type(other) is type(model) and other.config == model.config:
            return name
    return type(model).__name__
