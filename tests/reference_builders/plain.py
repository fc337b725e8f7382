"""The plain residual block: no repository, no norm; its class is a sum written out."""

from __future__ import annotations

import re

from repjax.blocks.residual import ResidualConv
from repjax.branches import Branch, Identity, KxK
from tests.reference_builders import ANY, Case, Meta


def branch(term: str) -> Branch:
    """``x`` or ``conv5x5(bias)`` as a branch."""
    if term == "x":
        return Identity()
    match = re.fullmatch(r"conv(\d+)x(\d+)(\(bias\))?", term)
    if match is None:
        raise ValueError(f"expected x or a term like conv3x3(bias), found {term!r}")
    return KxK((int(match[1]), int(match[2])), bias=match[3] is not None)


def build(meta: Meta) -> Case:
    arguments = meta["constructor"]
    model = ResidualConv(
        arguments["out_channels"],
        branches=tuple(branch(term) for term in meta["class"].split(" + ")),
        strides=arguments.get("stride", 1),
        groups=arguments.get("groups", 1),
        param_dtype="float64",
    )
    return Case(model, None, 1)


BUILDERS = {("plain", ANY): build}
