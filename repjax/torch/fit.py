"""Which form and which naming a state dict has: the ones that share most names with it."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from repjax.torch.names import Names, names_of
from repjax.torch.wrappers import Unwrapped, View, readings

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
        keys: name in the state for each, None where the table has none.
        state: what is to be loaded.
        checkpoint: where it comes from.
    """

    naming: str
    names: Names
    deployed: bool
    template: Template
    keys: Mapping[ArrayPath, str | None]
    state: Mapping[str, Any]
    checkpoint: Unwrapped

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
        """Number of names on both sides, as a fraction of the names on either side."""
        wanted = set(self.keys.values())
        return len(wanted & set(self.state)) / max(1, len(wanted | set(self.state)))

    @property
    def words(self) -> str:
        """The naming and the form, as messages write them."""
        return f"{self.naming} naming, {'deploy' if self.deployed else 'train'} form"


def best_fit(
    model: nn.Module,
    checkpoint: Unwrapped,
    naming: str | None,
    inputs: Any,
    *,
    without_head: bool,
    forms: tuple[bool, ...] = (False, True),
) -> Fit:
    """The form, naming and reading that have the largest share of names in common.

    Args:
        model: a network or block with names in `repjax.torch`.
        checkpoint: names to arrays.
        naming: one of the model's namings; None tries all.
        inputs: what the model is applied to, shapes are enough.
        without_head: leave the head out of both.
        forms: whether deployed, of the forms to try.

    Raises:
        ValueError: no naming of the model is known, or not this one.
    """
    chosen = tables_of(model, naming)
    states = [
        dataclasses.replace(found, state=_used(found.state)) for found in readings(checkpoint)
    ]
    best: Fit | None = None
    for deployed in forms if hasattr(model, "deployed") else (False,):
        template = template_of(model, deployed, inputs)
        for name, names in chosen.items():
            keys = {path: names.key(path[1:]) for path in template}
            for found in states:
                fit = _fit(name, names, deployed, template, keys, found)
                fit = _without_head(fit) if without_head else fit
                if best is None or fit.share > best.share:
                    best = fit
                if best.share == 1:  # no other fits better: its form need not be traced
                    return best
    assert best is not None
    return best


def tables_of(model: nn.Module, naming: str | None = None) -> dict[str, Names]:
    """The tables of names of a model by naming, or that of one naming.

    Raises:
        ValueError: no naming of the model is known, or not this one.
    """
    tables = names_of(type(model))
    if naming is not None and naming not in tables:
        raise ValueError(f"no naming {naming!r} of {type(model).__name__}; found {list(tables)}")
    return {
        name: table if isinstance(table, Names) else table(model)
        for name, table in tables.items()
        if naming in (None, name)
    }


def inputs_of(model: nn.Module) -> jax.ShapeDtypeStruct:
    """A small input that a network takes.

    Raises:
        ValueError: it is a block, which does not know its input channels.
    """
    channels = getattr(model, "in_channels", None)
    if channels is None:
        raise ValueError(
            f"{type(model).__name__} does not know its input; give inputs="
            "jax.ShapeDtypeStruct((1, height, width, channels), jnp.float32)"
        )
    shape = (1, 64, 64, channels)
    return jax.ShapeDtypeStruct(shape, jnp.float32)  # type: ignore[no-untyped-call]


def template_of(model: nn.Module, deployed: bool, inputs: Any) -> Template:
    """Shapes and dtypes of a model's variables in one form; the last ones are kept."""
    form = model.clone(deployed=deployed) if hasattr(model, "deployed") else model
    struct: Any = jax.ShapeDtypeStruct
    shapes = jax.tree.map(lambda leaf: struct(leaf.shape, leaf.dtype), inputs)
    leaves, structure = jax.tree.flatten(shapes)
    try:
        return _traced(form, structure, tuple(leaves), jax.dtypes.canonicalize_dtype(float))
    except TypeError:  # fields that cannot be hashed
        return flat(jax.eval_shape(form.init, jax.random.key(0), shapes))


@dataclasses.dataclass(frozen=True)
class Differences:
    """In which paths arrays differ from a template.

    Args:
        missing: that only the template has.
        unexpected: that only the arrays have.
        misshapen: of another shape, with the shape that was found and the one expected.
    """

    missing: list[ArrayPath]
    unexpected: list[ArrayPath]
    misshapen: list[tuple[ArrayPath, tuple[int, ...], tuple[int, ...]]]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.misshapen)


def differences(arrays: Mapping[ArrayPath, Any], template: Template) -> Differences:
    """How arrays differ from the variables that a template describes, types aside."""
    shapes = {path: tuple(np.shape(array)) for path, array in arrays.items()}
    return Differences(
        [path for path in template if path not in shapes],
        [path for path in shapes if path not in template],
        [
            (path, shapes[path], leaf.shape)
            for path, leaf in template.items()
            if path in shapes and shapes[path] != leaf.shape
        ],
    )


@functools.lru_cache(maxsize=16)
def _traced(form: nn.Module, structure: Any, leaves: tuple[Any, ...], default: Any) -> Template:
    """Traced once: a state dict that is read, written and checked asks several times."""
    inputs = jax.tree.unflatten(structure, leaves)
    return MappingProxyType(flat(jax.eval_shape(form.init, jax.random.key(0), inputs)))


def _used(state: Mapping[str, Any]) -> View:
    names = (name for name in state if name.split(".")[-1] != IGNORED)
    return View(state, {name: name for name in names})


def _fit(
    naming: str,
    names: Names,
    deployed: bool,
    template: Template,
    keys: Mapping[ArrayPath, str | None],
    found: Unwrapped,
) -> Fit:
    state = found.state
    if names.prepare is not None:
        state = names.prepare(dict(state))
    if deployed:
        state = names.deploy_form(state)
    return Fit(naming, names, deployed, template, keys, state, found)


def _without_head(fit: Fit) -> Fit:
    body = {p: leaf for p, leaf in fit.template.items() if not is_head(fit.names, p)}
    heads = {key for path, key in fit.keys.items() if path not in body}
    kept = {name: name for name in fit.state if name not in heads}
    return dataclasses.replace(
        fit,
        template=body,
        keys={path: fit.keys[path] for path in body},
        state=View(fit.state, kept),
    )


def is_head(names: Names, path: ArrayPath) -> bool:
    """Whether the array at a path depends on the number of classes."""
    return re.fullmatch(names.head, "/".join(path[1:])) is not None


def flat(variables: Any) -> dict[ArrayPath, Any]:
    """The arrays of a variables tree by collection and path, unboxed."""
    plain = nn.meta.unbox(variables)
    leaves: dict[ArrayPath, Any] = traverse_util.flatten_dict(plain)  # type: ignore[no-untyped-call]
    return leaves
