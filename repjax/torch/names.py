"""Tables of names: where each array of our trees lies in a PyTorch state dict."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from repjax.torch.arrays import oihw as oihw
from repjax.torch.folds import NORM, Folded

Replacement = str | Callable[[re.Match[str]], str]
Prepare = Callable[[dict[str, Any]], dict[str, Any]]

Shape = tuple[int, ...]
LINEAR: Shape = (0, 0)
POINTWISE: Shape = (0, 0, 1, 1)

LEAVES = {"kernel": "weight", "bias": "bias"}
NORM_LEAVES = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


@dataclasses.dataclass(frozen=True)
class Names:
    r"""One naming of one family: a table from places in our trees to places in a state dict.

    A path like ``stage1_block0/conv/y=norm(conv3x3)+norm(identity)/conv3x3/norm`` is read from
    left to right: the first rule whose pattern matches a stretch of whole names is applied,
    and reading goes on behind it. The replacements are joined by dots; empty ones vanish.
    The last name is the array's: `kernel` is `weight`, a norm's `scale`, `bias`, `mean` and
    `var` are `weight`, `bias`, `running_mean` and `running_var`; a rule may take it too.

    Args:
        rules: pattern to replacement (a `re` template, or a function of the match).
        prepare: applied to the state dict first, {name: array}, and returns another: for
            namings that store something else than our arrays.
        kept_norms: where the official deploy form keeps batch norms that ours folds: pattern
            of a convolution's place to the template of the place of the norm behind it.
        norms_in_front: the same for norms in front of a pointwise convolution or linear map:
            pattern of the norm's place to the template of that map's.
        kept_scales: the same for layer scales: pattern of the array's name to the template of
            the place of the map in front of it.
        epsilon: of those norms.
        shapes: where an official array has axes of 1 that ours has not, or lacks some: pattern of
            its name to its shape, with 0 for each axis that is ours (`linear`, `pointwise`). The
            maps of squeeze-excites are 1x1 convolutions in every naming.
        head: pattern of our paths that depend on the number of classes.

    Example:
        >>> names = Names({r"stage(\d)_block(\d+)": r"stage\1.\2", r"conv": "rbr_reparam"})
        >>> names.key(("stage1_block0", "conv", "kernel"))
        'stage1.0.rbr_reparam.weight'
    """

    rules: Mapping[str, Replacement]
    prepare: Prepare | None = None
    kept_norms: Mapping[str, str] = dataclasses.field(default_factory=dict)
    norms_in_front: Mapping[str, str] = dataclasses.field(default_factory=dict)
    kept_scales: Mapping[str, str] = dataclasses.field(default_factory=dict)
    epsilon: float = 1e-5
    shapes: Mapping[str, Shape] = dataclasses.field(default_factory=dict)
    head: str = "head.*"

    def key(self, path: tuple[str, ...]) -> str | None:
        """Name in the state dict of the array at a path, None where no rule leads there."""
        rest, parts = "/".join(path), []
        while rest:
            match, replacement = self._rule(rest)
            if match is None:
                break
            part = replacement(match) if callable(replacement) else match.expand(replacement)
            parts.append(part)
            rest = rest[match.end() + 1 :]
        if "/" in rest:
            return None
        if rest:
            norm = {"scale", "mean", "var"} & {rest} or path[-2:-1] == ("norm",)
            parts.append((NORM_LEAVES if norm else LEAVES).get(rest, rest))
        return ".".join(part for part in parts if part)

    def shape(self, key: str, path: tuple[str, ...]) -> Shape | None:
        """The official shape of an array, as in `shapes`; None where it is that of ours."""
        for pattern, shape in self.shapes.items():
            if re.fullmatch(pattern, key):
                return shape
        gate = path[-3:-2] == ("squeeze_excite",) and path[-1] == "kernel"
        return POINTWISE if gate else None

    def _rule(self, rest: str) -> tuple[re.Match[str] | None, Replacement]:
        for pattern, replacement in self._patterns:
            match = pattern.match(rest)
            if match is not None:
                return match, replacement
        return None, ""

    @functools.cached_property
    def _patterns(self) -> list[tuple[re.Pattern[str], Replacement]]:
        rules = self.rules.items()
        return [(re.compile(rf"(?:{rule})(?=/|\Z)"), replacement) for rule, replacement in rules]

    def deploy_form(self, state: Mapping[str, Any]) -> Folded:
        """The state without what the official deploy form keeps; nothing is computed yet."""
        folded = Folded(state)
        for name, norm in matches(state, self.kept_norms, ".weight"):
            if _all_there(folded, norm):
                folded.norm_behind(name, norm, self.epsilon)
        for scale, conv in matches(state, self.kept_scales, ""):
            if f"{conv}.weight" in folded:
                folded.scale_behind(conv, scale)
        for norm, conv in matches(state, self.norms_in_front, ".running_var"):
            if _all_there(folded, norm) and f"{conv}.weight" in folded:
                folded.norm_in_front(conv, norm, self.epsilon)
        return folded


def matches(
    state: Mapping[str, Any], patterns: Mapping[str, str], leaf: str
) -> Iterator[tuple[str, str]]:
    """Places that a pattern matches and that have that leaf, with what the template gives."""
    for pattern, template in patterns.items():
        for name in state:
            match = re.fullmatch(rf"({pattern}){re.escape(leaf)}", name)
            if match is not None:
                inner = re.fullmatch(pattern, match[1])
                assert inner is not None
                yield match[1], inner.expand(template)


def _all_there(state: Mapping[str, Any], norm: str) -> bool:
    """Whether a norm is whole; the arrays of one that is not are reported."""
    return all(f"{norm}.{leaf}" in state for leaf in NORM)


Table = Names | Callable[[Any], Names]

_TABLES: dict[type, dict[str, Table]] = {}


def register_names(module: type, **tables: Table) -> None:
    """Make the namings of a block or network known, at import time of its `names_*` file.

    Args:
        module: the Linen class.
        **tables: `original`, `timm`, and others by their names; a function of the model where
            places depend on its configuration.

    Raises:
        TypeError: a table is neither a `Names` nor a function.

    Example:
        >>> class Block: ...
        >>> register_names(Block, original=Names({"conv": "rbr_reparam"}))
        >>> list(names_of(Block))
        ['original']
    """
    for name, table in tables.items():
        if not isinstance(table, Names) and not callable(table):
            raise TypeError(
                f"{name}: expected Names or a function of the model, found a {type(table).__name__}"
            )
    _TABLES.setdefault(module, {}).update(tables)


def names_of(module: type) -> Mapping[str, Table]:
    """The namings of a class, or of the nearest class it derives from.

    Raises:
        ValueError: no naming of the class is known.
    """
    _import_tables()
    for base in module.__mro__:
        if base in _TABLES:
            return _TABLES[base]
    known = ", ".join(sorted(cls.__name__ for cls in _TABLES))
    raise ValueError(f"no PyTorch naming of {module.__name__} is known; there are some of {known}")


@functools.cache
def _import_tables() -> None:
    package = importlib.import_module("repjax.torch")
    for module in pkgutil.iter_modules(package.__path__):
        if module.name.startswith("names_"):
            importlib.import_module(f"repjax.torch.{module.name}")
