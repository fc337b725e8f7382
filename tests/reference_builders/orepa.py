"""OREPA's blocks."""

from __future__ import annotations

from typing import Any

from repjax.blocks.orepa import OREPABlock, OREPALargeBlock, OREPAPointwiseBlock, OREPARepVGGBlock
from tests.reference_builders import Case, Meta
from tests.reference_builders.dbb import activation


def geometry(arguments: Meta, kernel_size: int | None = None, padding: int = 0) -> dict[str, Any]:
    """Arguments of a block in PyTorch's words as ours."""
    return {
        "features": arguments["out_channels"],
        "kernel_size": arguments.get("kernel_size", kernel_size),
        "strides": arguments.get("stride", 1),
        "padding": arguments.get("padding", padding),
        "dilation": arguments.get("dilation", 1),
        "groups": arguments.get("groups", 1),
        "param_dtype": "float64",
    }


def block(meta: Meta) -> Case:
    arguments = meta["constructor"]
    model = OREPABlock(
        **geometry(arguments),
        internal=arguments.get("internal_channels_1x1_3x3"),
        activation=activation(arguments.get("nonlinear")),
    )
    return Case(model, "original", 1)


def pointwise(meta: Meta) -> Case:
    arguments = meta["constructor"]
    act = activation(arguments.get("nonlinear"))
    return Case(OREPAPointwiseBlock(**geometry(arguments, 1), activation=act), "original", 1)


def large(branched: bool) -> Any:
    def build(meta: Meta) -> Case:
        arguments = meta["constructor"]
        act = activation(arguments.get("nonlinear"))
        model = OREPALargeBlock(**geometry(arguments), activation=act, branched=branched)
        return Case(model, "original", 1)

    return build


def repvgg(meta: Meta) -> Case:
    arguments = meta["constructor"]
    hidden = arguments["out_channels"] // 16 if arguments.get("use_se") else 0
    model = OREPARepVGGBlock(
        **{**geometry(arguments), "dilation": 1},  # the train form has none
        squeeze_excite=hidden,
        square_window=True,
        activation=activation(arguments.get("nonlinear", "ReLU")),
    )
    return Case(model, "original", 1)


BUILDERS = {
    ("OREPA", "OREPA"): block,
    ("OREPA", "OREPA_1x1"): pointwise,
    ("OREPA", "OREPA_LargeConv"): large(branched=True),
    ("OREPA", "OREPA_LargeConvBase"): large(branched=False),
    ("OREPA", "RepVGGBlock_OREPA"): repvgg,
}
