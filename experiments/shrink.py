"""Small versions of networks, found without knowing what the fields of a family are called."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from repjax import models

BLOCKS = 2
CHANNELS = 8
Shapes = Mapping[str, tuple[int, ...]]


def small(name: str) -> models.Network:
    """A network with few blocks and few channels, its structure otherwise kept.

    Args:
        name: published name of the network.

    Example:
        >>> small("repvgg_a0").config.depths
        (2, 2, 2, 1)
    """
    depth, width = fields(models.create(name))
    config: Any = models.create(name).config
    changes = {} if depth is None else {depth: few(getattr(config, depth))}
    if width is not None:
        changes[width] = narrow(getattr(config, width))
    return models.create(name, num_classes=10, **changes)


def fields(model: models.Network) -> tuple[str | None, str | None]:
    """The fields of a network's configuration that say how deep and how wide it is.

    A field is a depth if with smaller numbers some arrays are gone and the others are as they
    were; a width if all arrays are there, of the same kernel sizes, with fewer channels. Of
    several, the one that changes most arrays counts. The first network of the class is tried.
    """
    kind = type(model)
    if kind not in _KNOWN:
        every = map(models.create, models.names())
        first = next((other for other in every if type(other) is kind), model)
        _KNOWN[kind] = (
            _most(first, few, _gone),
            _most(first, half, _narrower),
        )
    return _KNOWN[kind]


_KNOWN: dict[type, tuple[str | None, str | None]] = {}


def _most(
    model: Any, change: Callable[[Any], Any], changed: Callable[[Shapes, Shapes], int]
) -> str | None:
    whole = shapes(model)
    assert whole is not None
    numbers: dict[str, int] = {}
    for field, value in _numbers(model.config):
        config = dataclasses.replace(model.config, **{field: change(value)})
        found = None if config == model.config else shapes(model.clone(config=config))
        numbers[field] = 0 if found is None else changed(found, whole)
    best = max(numbers, key=lambda field: numbers[field], default=None)
    return best if best is not None and numbers[best] else None


def _numbers(config: Any) -> Iterator[tuple[str, Any]]:
    """Fields that hold a number, or one for each stage."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        values = value if isinstance(value, tuple) else (value,)
        if values and all(type(number) in (int, float) for number in values):
            yield field.name, value


def few(value: Any) -> Any:
    """Numbers of blocks, a few at most."""
    if isinstance(value, tuple):
        return tuple(few(number) for number in value)
    return min(value, BLOCKS)


def narrow(value: Any) -> Any:
    """Numbers of channels, the first 8 and the others in proportion; a quarter of a factor.

    Example:
        >>> narrow((48, 96)), narrow(0.5)
        ((8, 16), 0.125)
    """
    if isinstance(value, tuple):
        return tuple(CHANNELS * round(number / value[0]) for number in value)
    return CHANNELS if isinstance(value, int) else value / 4


def half(value: Any) -> Any:
    """Half of each number, at least 1 of a whole one."""
    if isinstance(value, tuple):
        return tuple(half(number) for number in value)
    return max(value // 2, 1) if isinstance(value, int) else value / 2


def shapes(model: models.Network) -> Shapes | None:
    """Shapes of a network's variables by path; None where the network does not work."""
    x = jax.ShapeDtypeStruct((1, 64, 64, model.in_channels), jnp.float32)  # type: ignore[no-untyped-call]
    try:
        variables = jax.eval_shape(model.init, jax.random.key(0), x)
    except (ValueError, TypeError, ZeroDivisionError):
        return None
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    return {jax.tree_util.keystr(path): leaf.shape for path, leaf in leaves}


def _gone(found: Shapes, whole: Shapes) -> int:
    """How many arrays are gone; 0 where others are not as they were."""
    same = all(whole.get(path) == found[path] for path in found)
    return len(whole) - len(found) if same else 0


def _narrower(found: Shapes, whole: Shapes) -> int:
    """How many arrays have fewer channels; 0 where others are there, or other kernel sizes."""
    if found.keys() != whole.keys():
        return 0
    pairs = [(found[path], whole[path]) for path in whole]
    return sum(a != b for a, b in pairs) if all(a[:-2] == b[:-2] for a, b in pairs) else 0


def of_scale(path: Any) -> bool:
    """Whether a path leads to a factor of each channel."""
    return bool(path[-1].key == "scale")


def node(path: Any) -> str:
    """The multi-branch node that an array is in, or its own place where it is in none."""
    names = [key.key for key in path]
    ends = [number for number, name in enumerate(names, 1) if name.startswith("y=")]
    return "/".join(names[: ends[0]] if ends else names)


def random_variables(template: Any) -> Any:
    """Variables of those shapes: weights that keep magnitudes, statistics that are not trivial.

    What is added up in one node has scales that are smaller the more of them there are. Sums
    would grow from layer to layer otherwise, and saturate the gates behind them.

    Args:
        template: a tree as `jax.eval_shape(model.init, ...)` gives it.
    """
    random = np.random.default_rng(0)
    terms = collections.Counter(
        node(path) for path, _ in jax.tree_util.tree_leaves_with_path(template) if of_scale(path)
    )

    def draw(path: Any, leaf: Any) -> jax.Array:
        name = path[-1].key
        values = 0.3 * random.normal(size=leaf.shape)
        if name == "kernel":
            values /= 0.3 * np.sqrt(max(1, math.prod(leaf.shape[:-1])))
        elif name in ("var", "scale"):
            values = random.uniform(0.5, 1.5, leaf.shape)
            values *= 1 if name == "var" else random.choice([-1, 1], leaf.shape)
            values /= 1 if name == "var" else math.sqrt(terms[node(path)])
        return jnp.asarray(values, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, template)
