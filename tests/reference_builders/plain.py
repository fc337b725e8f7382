"""The plain residual block: no repository, no norm."""

from __future__ import annotations

from repjax.blocks.residual import ResidualConv
from repjax.branches import Branch, Identity, KxK, Pointwise
from tests.reference_builders import Case, Meta


def build(meta: Meta) -> Case:
    arguments = meta["constructor"]
    branches: list[Branch] = [KxK(arguments.get("kernel", 3)), Pointwise()]
    if arguments.get("identity", True):
        branches.append(Identity())
    model = ResidualConv(
        arguments["out_channels"],
        branches=tuple(branches),
        strides=arguments.get("stride", 1),
        groups=arguments.get("groups", 1),
        param_dtype="float64",
    )
    return Case(model, "original", 1)


BUILDERS = {
    ("plain", "conv3x3(bias) + conv1x1(bias) + x"): build,
    ("plain", "conv3x3(bias) + conv1x1(bias)"): build,
}
