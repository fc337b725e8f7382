"""The grammar of names: a block's node is named by what the block computes.

The multi-branch form of a block keeps its arrays in one node whose name is an equation, so
that the structure survives everything a tree goes through (jit, vmap, optax, Orbax,
safetensors) and module and fold cannot disagree::

    y=norm(conv3x3)+norm(conv1x1)+norm(identity)          RepVGG
    y=conv3x3[bias]+conv1x1[bias]+identity                 a plain residual block
    y=4*norm(conv3x3)+norm(conv1x1)+norm(identity)         MobileOne
    y=norm(norm(conv3x3)+conv1x1+identity)                 batch norm after the sum
    y=norm(conv3x3)+norm(conv3x3(norm(conv1x1)))           pointwise, then 3x3
    y=conv3x3[bias]+scale[bias](sobelx3x3(conv1x1[bias]))  an edge mask, scaled
    y=norm(conv1x1(shift(identity)))                       a bias before a pointwise one

In full, ``{}`` meaning any number of times and ``[]`` in quotes being literal::

    equation  = "y=" sum
    sum       = ["-"] term { ("+" | "-") term }
    term      = [count "*"] branch                          count equal neighbors
    branch    = "identity"
              | kernel size attributes [ "(" sum ")" ]      of the input, or of the sum
              | "norm" attributes "(" sum ")"
              | "scale" attributes "(" sum ")"
              | "shift" "(" sum ")"
              | "(" sum ")" [ "(" sum ")" ]                 the first sum of the second
              | "orepa" size attributes [ "(" sum ")" ]     OREPA's set, see `short`
    kernel    = "conv" | "depthwise" | "average"
              | "sobelx" | "sobely" | "laplacian"           never trained: see `fixed`
              | "cosine" | "mean" | "eye"
    size      = number { "x" number }                       taps per axis: 3, 3x3, 1x3x3
    attributes= [ "[" name or name=value { "," ... } "]" ]

Attributes stand only where they are not the default: ``bias``, ``dilation=2``, ``tap=1``
(the tap that meets the identity, where it is not ``(size-1)//2``) of a convolution and of a
depthwise one, which has ``multiplier=8`` too, ``tap`` of a pool, ``bias`` of a scale,
``epsilon=1e-3`` (default 1e-5), ``scale=no``, ``bias=no`` of a norm, ``pointwise=no`` of
OREPA's set.

Below the equation each branch of a sum has a node named by its kind and size (``conv3x3``,
``conv3x3_dilation2``, ``identity``, ``conv1x1_conv3x3`` for a chain), numbered where names
are equal (``conv3x3_0``); it holds ``kernel``, ``bias``, ``scale``, ``mask`` (of a kernel
never trained, in the collection `fixed`) and a node ``norm``.

Names are a file format: a name that one version wrote is read by every later one. Before
there were short words (`repjax.branches.short`) sets were written out; `parse` reads both.
The whole path of an array, joined by dots, has at most 240 characters, so that stores with a
file per array work; a block whose paths would be longer is refused when it is created.
"""

from __future__ import annotations

import re
from typing import Any

from repjax.branches.branch import Branch
from repjax.branches.fixed import PATTERNS, Fixed
from repjax.branches.identity import Identity
from repjax.branches.kxk import Depthwise, KxK
from repjax.branches.norm import Norm
from repjax.branches.pool import AveragePool
from repjax.branches.scale import Negate, Scale
from repjax.branches.sequence import Sequence
from repjax.branches.shift import Shift
from repjax.branches.short import written_out
from repjax.branches.sum import Sum

PREFIX = "y="
MOST_BRANCHES, MOST_NESTED = 1000, 60
_KINDS = ("conv", "depthwise", "average", *PATTERNS, "norm", "scale", "shift", "orepa")


def equation(branch: Branch) -> str:
    """Name of the node of a resolved branch.

    Example:
        >>> equation(Sum((KxK(3), Identity())).resolve(2, use_bias=True))
        'y=conv3x3[bias]+identity'
    """
    return PREFIX + branch.formula()


def require_kernel(branch: Branch) -> None:
    """Refuse a block without a trained kernel: its arrays would not imply channels and groups.

    Raises:
        ValueError: no branch has a kernel.

    Example:
        >>> require_kernel(Identity())
        Traceback (most recent call last):
        ValueError: a block needs a branch with a kernel; found identity
    """
    if not any(path[-1] == "kernel" for path in branch.leaves()):
        raise ValueError(f"a block needs a branch with a kernel; found {branch.formula()}")


def parse(name: str) -> Branch:
    """The branch that a node name stands for, resolved.

    Args:
        name: an equation as written by `equation`.

    Raises:
        ValueError: `name` is not an equation of this grammar, with the place and the reason.

    Example:
        >>> parse("y=norm(conv3x3)").formula()
        'norm(conv3x3)'
    """
    if not name.startswith(PREFIX):
        raise ValueError(f"{shown(name)} does not begin with {PREFIX!r}")
    reader = _Reader(name)
    branch = reader.sum()
    reader.end()
    dims = {inner.dims for inner in branch.walk() if inner.dims is not None}
    if len(dims) > 1:
        raise ValueError(
            f"{shown(name)}: expected one number of spatial axes, found {sorted(dims)}"
        )
    try:
        branch = branch.resolve(dims.pop() if dims else 0, use_bias=False)
        require_kernel(branch)
    except ValueError as error:
        raise ValueError(f"{shown(name)}: {error}") from error
    if name not in (equation(branch), written_out(equation(branch))):
        raise ValueError(f"{shown(name)} is not in its normal form {equation(branch)!r}")
    return branch


def shown(name: str) -> str:
    """A name as messages write it: quoted, and cut where it is long."""
    return repr(name if len(name) <= 120 else f"{name[:90]}...{name[-20:]}")


class _Reader:
    """A recursive-descent reader: one method per rule of the grammar."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.place = len(PREFIX)
        self.depth = 0

    def require(self, condition: bool, words: str) -> None:
        if not condition:
            raise ValueError(f"{shown(self.text)}: {words}, up to character {self.place}")

    def take(self, pattern: str) -> re.Match[str] | None:
        """Read on if the text goes on like this."""
        match = re.compile(pattern).match(self.text, self.place)
        if match:
            self.place = match.end()
        return match

    def expect(self, pattern: str, words: str) -> re.Match[str]:
        match = self.take(pattern)
        if match is None:
            raise ValueError(f"{shown(self.text)}: expected {words} at character {self.place}")
        return match

    def end(self) -> None:
        self.expect(r"\Z", "the end")

    def sum(self) -> Branch:
        terms: list[Branch] = []
        parts = 0
        self.depth += 1
        self.require(self.depth <= MOST_NESTED, f"sums nested more than {MOST_NESTED} deep")
        sign = self.take("-")
        while True:
            count = self.take(r"(\d+)\*")
            branch = self.branch()
            copies = int(count[1][:9]) if count else 1
            parts += copies * sum(1 for _ in branch.walk())
            self.require(parts <= MOST_BRANCHES, f"more than {MOST_BRANCHES} branches")
            terms += [Negate(branch) if sign else branch] * copies
            operator = self.take(r"[+-]")
            if operator is None:
                self.depth -= 1
                return terms[0] if len(terms) == 1 else Sum(tuple(terms))
            sign = operator if operator[0] == "-" else None

    def branch(self) -> Branch:
        if self.take("identity"):
            return Identity()
        if self.take(r"\("):
            return self.applied(self.close(self.sum()))
        kind = self.expect(f"({'|'.join(_KINDS)})", "a branch")[1]
        if kind == "orepa":
            return self.applied(self.short())
        if kind not in ("norm", "scale", "shift"):
            size = self.numbers(self.expect(r"\d+(x\d+)*", "a size")[0])
            return self.applied(self.kernel(kind, size))
        known = {"norm": ("epsilon", "scale", "bias"), "scale": ("bias",), "shift": ()}
        flags = self.attributes(*known[kind])
        self.expect(r"\(", "'('")
        inner = self.close(self.sum())
        if kind == "shift":
            return Shift(inner)
        if kind == "scale":
            return Scale(inner, bias="bias" in flags)
        epsilon = self.number(flags.pop("epsilon", "1e-5"))
        scale, bias = (flags.get(key) != "no" for key in ("scale", "bias"))
        return Norm(inner, epsilon, scale=scale, bias=bias)

    def close(self, branch: Branch) -> Branch:
        self.expect(r"\)", "')'")
        return branch

    def applied(self, outer: Branch) -> Branch:
        return Sequence(self.close(self.sum()), outer) if self.take(r"\(") else outer

    def kernel(self, kind: str, size: tuple[int, ...]) -> Branch:
        if kind == "average":
            return self.pool(size)
        if kind in PATTERNS:
            return Fixed(kind, size)
        more = ("multiplier",) if kind == "depthwise" else ()
        flags = self.attributes("bias", "dilation", "tap", *more)
        wide = {
            key: self.per_axis(flags[key], len(size)) for key in ("dilation", "tap") if key in flags
        }
        if kind == "conv":
            return KxK(size, bias="bias" in flags, **wide)
        multiplier = self.numbers(flags.get("multiplier", "1"))[0]
        return Depthwise(size, multiplier, bias="bias" in flags, **wide)

    def short(self) -> Branch:
        size = self.expect(r"\d+x\d+", "a size of two axes")[0]
        pointwise = self.attributes("pointwise").get("pointwise")
        suffix = "" if pointwise is None else "[pointwise=no]"
        self.require(pointwise in (None, "no"), "pointwise=no is the one attribute of orepa")
        return _Reader(written_out(f"{PREFIX}orepa{size}{suffix}")).sum()

    def pool(self, size: tuple[int, ...]) -> AveragePool:
        flags = self.attributes("tap")
        return AveragePool(size, self.per_axis(flags["tap"], len(size)) if flags else None)

    def attributes(self, *known: str) -> dict[str, str]:
        if not self.take(r"\["):
            return {}
        found: dict[str, str] = {}
        while True:
            match = self.expect(r"([a-z]+)(?:=([0-9a-z-]+))?", "an attribute")
            if match[1] not in known or match[1] in found:
                raise ValueError(
                    f"{shown(self.text)}: attribute {match[1]!r}, expected one of {known}"
                )
            found[match[1]] = match[2] or ""
            if self.expect(r"[\],]", "',' or ']'")[0] == "]":
                return found

    def numbers(self, text: str) -> tuple[int, ...]:
        if not re.fullmatch(r"\d+(x\d+)*", text):
            raise ValueError(f"{shown(self.text)}: expected numbers like 3 or 3x3, found {text!r}")
        return tuple(int(number) for number in text.split("x"))

    def per_axis(self, text: str, dims: int) -> Any:
        numbers = self.numbers(text)
        return numbers[0] if len(numbers) == 1 else numbers

    def number(self, text: str) -> float:
        try:
            return float(text)
        except ValueError:
            raise ValueError(f"{shown(self.text)}: epsilon is no number: {text!r}") from None
