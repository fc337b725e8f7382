"""ECBSR: the edge-oriented block and the network."""

from __future__ import annotations

from typing import Any

import jax

from repjax.blocks.ecb import ECB
from repjax.models.ecbsr import ECBSR, ECBSRConfig
from tests.reference_builders import Case, Meta

NAMES = {"prelu": "prelu", "relu": "relu", "softplus": "softplus", "linear": None}


def block(meta: Meta) -> Case:
    arguments = meta["constructor"]
    name = NAMES[arguments.get("act_type", "prelu")]
    function: Any = name if name in ("prelu", None) else getattr(jax.nn, name)
    model = ECB(
        arguments["out_planes"],
        depth_multiplier=arguments["depth_multiplier"],
        identity=bool(arguments.get("with_idt", False)),
        activation=function,
        param_dtype="float64",
    )
    return Case(model, "original", 1)


def network(meta: Meta) -> Case:
    arguments = meta["constructor"]
    config = ECBSRConfig(
        modules=arguments["module_nums"],
        features=arguments["channel_nums"],
        scale=arguments["scale"],
        identity=bool(arguments["with_idt"]),
        activation=arguments["act_type"],
    )
    model = ECBSR(config, in_channels=arguments["colors"], param_dtype="float64")
    return Case(model, "original", config.modules + 2)


BUILDERS = {("ECBSR", "ECB"): block, ("ECBSR", "ECBSR"): network}
