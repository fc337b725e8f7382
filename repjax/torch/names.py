"""Tables of names: where each array of our trees lies in a PyTorch state dict."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import pkgutil
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from repjax import algebra

Replacement = str | Callable[[re.Match[str]], str]
Prepare = Callable[[dict[str, Any]], dict[str, Any]]

LEAVES = {"kernel": "weight", "bias": "bias"}
NORM = ("running_mean", "running_var", "weight", "bias")
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
        kept_norms: pattern of a convolution's place to the template of the place of a batch
            norm after it, where the official deploy form keeps norms that ours folds.
        epsilon: of those norms.
        head: pattern of our paths that depend on the number of classes.

    Example:
        >>> names = Names({r"stage(\d)_block(\d+)": r"stage\1.\2", r"conv": "rbr_reparam"})
        >>> names.key(("stage1_block0", "conv", "kernel"))
        'stage1.0.rbr_reparam.weight'
    """

    rules: Mapping[str, Replacement]
    prepare: Prepare | None = None
    kept_norms: Mapping[str, str] = dataclasses.field(default_factory=dict)
    epsilon: float = 1e-5
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

    def _rule(self, rest: str) -> tuple[re.Match[str] | None, Replacement]:
        for pattern, replacement in self.rules.items():
            match = re.compile(rf"(?:{pattern})(?=/|\Z)").match(rest)
            if match is not None:
                return match, replacement
        return None, ""

    def deploy_form(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """The state with the norms folded that the official deploy form keeps."""
        folded = dict(state)
        for pattern, template in self.kept_norms.items():
            for name in state:
                match = re.fullmatch(rf"(?:{pattern})\.weight", name)
                norm = match.expand(template) if match else None
                if norm is not None and _foldable(state, name, norm):
                    _fold_norm(folded, name.removesuffix(".weight"), norm, self.epsilon)
        return folded


def _foldable(state: Mapping[str, Any], weight: str, norm: str) -> bool:
    """Whether a norm is whole and fits; what is not is left for the report of problems."""
    width = np.shape(state[weight])[:1]
    leaves = [f"{norm}.{leaf}" for leaf in NORM]
    return all(leaf in state and np.shape(state[leaf]) == width for leaf in leaves)


def _fold_norm(state: dict[str, Any], conv: str, norm: str, epsilon: float) -> None:
    wide = np.float64  # the algebra keeps float32 at least, and what JAX allows
    arrays = [np.asarray(state.pop(f"{norm}.{leaf}"), wide) for leaf in NORM]
    kernel = hwio(np.asarray(state[f"{conv}.weight"], wide))
    bias = state.get(f"{conv}.bias")
    inner = algebra.Conv(kernel, None if bias is None else np.asarray(bias, wide))
    affine = algebra.batch_norm(*arrays, epsilon=epsilon, dims=kernel.ndim - 2)
    folded = algebra.compose(inner, affine)
    state[f"{conv}.weight"] = oihw(np.asarray(folded.kernel))
    state[f"{conv}.bias"] = np.asarray(folded.bias)


def hwio(array: np.ndarray) -> np.ndarray:
    """A kernel (out, in, spatial...) as (spatial..., in, out).

    Example:
        >>> hwio(np.ones((8, 4, 3, 5))).shape
        (3, 5, 4, 8)
    """
    return array.transpose(*range(2, array.ndim), 1, 0)


def oihw(array: np.ndarray) -> np.ndarray:
    """A kernel (spatial..., in, out) as (out, in, spatial...).

    Example:
        >>> oihw(np.ones((3, 5, 4, 8))).shape
        (8, 4, 3, 5)
    """
    return array.transpose(-1, -2, *range(array.ndim - 2))


Table = Names | Callable[[Any], Names]

_TABLES: dict[type, dict[str, Table]] = {}


def register_names(module: type, **tables: Table) -> None:
    """Make the namings of a block or network known, at import time of its `names_*` file.

    Args:
        module: the Linen class.
        **tables: `original`, `timm`, and others by their names; a function of the model where
            places depend on its configuration.

    Example:
        >>> class Block: ...
        >>> register_names(Block, original=Names({"conv": "rbr_reparam"}))
        >>> list(names_of(Block))
        ['original']
    """
    _TABLES.setdefault(module, {}).update(tables)


def names_of(module: type) -> Mapping[str, Table]:
    """The namings of a class, or of the nearest class it derives from.

    Raises:
        ValueError: no naming of it is known.
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
