"""ACNet's asymmetric block."""

from __future__ import annotations

import flax.linen as nn

from repjax.blocks.acnet import ACBlock
from tests.reference_builders import Case, Meta


def block(meta: Meta) -> Case:
    arguments = meta["constructor"]
    gamma = 1 / 3 if arguments.get("reduce_gamma") else arguments.get("gamma_init") or 1.0
    model = ACBlock(
        arguments["out_channels"],
        kernel_size=arguments["kernel_size"],
        strides=arguments.get("stride", 1),
        padding=arguments.get("padding", 0),
        dilation=arguments.get("dilation", 1),
        groups=arguments.get("groups", 1),
        affine=arguments.get("use_affine", True),
        norm_scale_init=nn.initializers.constant(gamma),
        param_dtype="float64",
    )
    return Case(model, "original", 1)


BUILDERS = {("ACNet", "ACBlock"): block}
