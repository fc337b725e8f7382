"""The Diverse Branch Block."""

from __future__ import annotations

from typing import Any

import jax

from repjax.blocks.block import gelu
from repjax.blocks.dbb import DiverseBranchBlock
from tests.reference_builders import Case, Meta

ACTIVATIONS: dict[str | None, Any] = {
    None: None,
    "Identity": None,
    "ReLU": jax.nn.relu,
    "ReLU6": jax.nn.relu6,
    "GELU": gelu,
    "SiLU": jax.nn.silu,
    "Sigmoid": jax.nn.sigmoid,
    "Softplus": jax.nn.softplus,
    "Hardswish": jax.nn.hard_swish,
    "Hardsigmoid": jax.nn.hard_sigmoid,
    "LeakyReLU": jax.nn.leaky_relu,
    "ELU": jax.nn.elu,
    "Tanh": jax.nn.tanh,
}


def activation(name: str | None) -> Any:
    """The function of a PyTorch module's name, None for none."""
    return ACTIVATIONS[None if name is None else name.removesuffix("()")]


def block(meta: Meta) -> Case:
    arguments = meta["constructor"]
    model = DiverseBranchBlock(
        arguments["out_channels"],
        kernel_size=arguments["kernel_size"],
        strides=arguments.get("stride", 1),
        padding=arguments.get("padding", 0),
        dilation=arguments.get("dilation", 1),
        groups=arguments.get("groups", 1),
        internal=arguments.get("internal_channels_1x1_3x3"),
        activation=activation(arguments.get("nonlinear")),
        single_init=bool(arguments.get("single_init")),
        param_dtype="float64",
    )
    return Case(model, "original", 1)


BUILDERS = {("DBB", "DiverseBranchBlock"): block}
