"""Short words in the grammar of names, for sets of branches that would fill a line.

A set keeps the nodes of its sum in the tree; only the name of the block's node is shorter.
"""

from __future__ import annotations

import re

_OREPA = (
    "scale(conv{size})+scale(mean{size}(conv1x1))+scale(cosine{size}(conv1x1))"
    "+scale(conv{size}(conv1x1+eye1x1)){pointwise}+scale(conv1x1(depthwise{size}[multiplier=8]))"
)
_POINTWISE = {"": "+scale(conv1x1)", "[pointwise=no]": ""}
_LONG = {
    suffix: re.compile(
        re.escape(_OREPA.format(size="SIZE", pointwise=pointwise))
        .replace("SIZE", r"(\d+x\d+)", 1)
        .replace("SIZE", r"\1")
    )
    for suffix, pointwise in _POINTWISE.items()
}
_SHORT = re.compile(r"orepa(\d+x\d+)(\[pointwise=no\])?")


def shortened(formula: str) -> str:
    """The short word for a sum, or the sum as it was.

    Example:
        >>> shortened(written_out("y=orepa3x3").removeprefix("y="))
        'orepa3x3'
    """
    for suffix, pattern in _LONG.items():
        match = pattern.fullmatch(formula)
        if match:
            return f"orepa{match[1]}{suffix}"
    return formula


def written_out(name: str) -> str:
    """A name without short words, as it was written before there were any.

    Example:
        >>> written_out("y=norm(orepa3x3[pointwise=no])")[:34]
        'y=norm(scale(conv3x3)+scale(mean3x'
    """

    def long(match: re.Match[str]) -> str:
        text = _OREPA.format(size=match[1], pointwise=_POINTWISE[match[2] or ""])
        alone = name[match.start() - 1] in "(=" and name[match.end() : match.end() + 1] in (")", "")
        return text if alone else f"({text})"

    return _SHORT.sub(long, name)
