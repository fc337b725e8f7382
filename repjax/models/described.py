"""The way back from a network to its name and overrides, as JSON has them."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from repjax.models.network import Network, Preprocessing
from repjax.models.registry import create, networks

_SIMPLE = (bool, int, float, str, type(None))
_TYPES = ("dtype", "param_dtype")


def described(model: nn.Module) -> tuple[str, dict[str, Any]]:
    """The name and the overrides from which `created` makes a network again.

    Of several names of a family, the one with the fewest overrides.

    Args:
        model: a network of `repjax.models.create`.

    Returns:
        The name, and values that JSON can hold.

    Raises:
        TypeError: it is no network of `repjax.models`.
        ValueError: a field is something that JSON cannot hold, such as a function.

    Example:
        >>> described(create("repvgg_a0", num_classes=10, depths=(1, 1, 1, 1)))
        ('repvgg_a0', {'depths': [1, 1, 1, 1], 'num_classes': 10})
    """
    found: list[tuple[str, dict[str, Any]]] = []
    for name, (network, config) in networks().items():
        if type(model) is network:
            sizes = _changes(model.config, config)
            found.append((name, sizes | _changes(model, create(name), without=("config",))))
    if not found:
        raise TypeError(
            f"{type(model).__name__} is no network of repjax.models.create, which alone can be "
            "made again from a file"
        )
    name, overrides = min(found, key=lambda item: len(item[1]))
    problems: list[str] = []
    plain = {key: _plain(key, value, problems) for key, value in overrides.items()}
    if problems:
        raise ValueError(f"{name} cannot be described: {'; '.join(problems)}")
    return name, plain


def created(name: str, overrides: dict[str, Any]) -> Network:
    """The network of a name and overrides that `described` gave.

    Args:
        name: one of `repjax.models.names()`.
        overrides: arguments of `repjax.models.create`, as JSON has them.

    Raises:
        ValueError: as `repjax.models.create`; or a type that JAX does not know.
        TypeError: the fields of `preprocessing` are others.

    Example:
        >>> created("mobileone_s0", {"dtype": "bfloat16"}).dtype
        dtype(bfloat16)
    """
    values = dict(overrides)
    for field in _TYPES:
        if isinstance(values.get(field), str):
            try:
                values[field] = jnp.dtype(values[field])
            except TypeError as error:
                raise ValueError(f"{field}: JAX has no type {values[field]!r}") from error
    if isinstance(values.get("preprocessing"), dict):
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in values["preprocessing"].items()
        }
        values["preprocessing"] = Preprocessing(**fields)
    return create(name, **values)


def _changes(one: Any, other: Any, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """The fields of a dataclass that differ from those of another one."""
    names = [field.name for field in dataclasses.fields(one)]
    pairs = {
        name: (getattr(one, name), getattr(other, name))
        for name in names
        if name not in ("parent", "name", *without)
    }
    return {name: mine for name, (mine, theirs) in pairs.items() if _differ(name, mine, theirs)}


def _differ(name: str, mine: Any, theirs: Any) -> bool:
    if name in _TYPES and mine is not None and theirs is not None:
        return bool(jnp.dtype(mine) != jnp.dtype(theirs))
    return type(mine) is not type(theirs) or bool(mine != theirs)


def _plain(name: str, value: Any, problems: list[str]) -> Any:
    if isinstance(value, _SIMPLE):
        return value
    if isinstance(value, list | tuple):
        return [_plain(name, item, problems) for item in value]
    if isinstance(value, Preprocessing):
        return dataclasses.asdict(value)
    if name in _TYPES:
        return str(jnp.dtype(value))
    what = "a function" if callable(value) else f"a {type(value).__name__}"
    problems.append(f"{name} is {what}, which a file cannot hold")
    return None
