"""Reading the name of a node by the grammar of `repjax.branches.grammar`."""

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


def shown(name: str) -> str:
    """A name as messages write it: quoted, and cut where it is long."""
    return repr(name if len(name) <= 120 else f"{name[:90]}...{name[-20:]}")


def read(name: str) -> Branch:
    """The branch of an equation, as it stands there.

    Raises:
        ValueError: the text is not of this grammar, with the place and the reason.

    Example:
        >>> read("y=2*norm(conv3x3)").resolve(2, use_bias=False).formula()
        '2*norm(conv3x3)'
    """
    reader = _Reader(name)
    branch = reader.sum()
    reader.end()
    return branch


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
