"""FastViT: blocks and network of the original repository, and timm's network."""

from __future__ import annotations

import json
import re
from typing import Any

from repjax.blocks.block import gelu
from repjax.blocks.fastvit import PatchEmbed, RepCPE, RepMixer
from repjax.blocks.fastvit_stages import AttentionBlock, RepMixerBlock
from repjax.blocks.mobileone import MobileOneBlock
from repjax.blocks.replknet import ReparamLargeKernelConv
from repjax.models.fastvit import FastViT
from repjax.models.fastvit_sizes import FastViTConfig
from tests.reference_builders import Case, Meta

F64 = {"param_dtype": "float64"}


def scale(arguments: Meta) -> float | None:
    return (
        arguments.get("layer_scale_init_value", 1e-5)
        if arguments.get("use_layer_scale", True)
        else None
    )


def mobileone_block(meta: Meta) -> Case:
    """The train form ignores the dilation."""
    arguments = meta["constructor"]
    copies = arguments.get("num_conv_branches", 1)
    model = MobileOneBlock(
        arguments["out_channels"],
        kernel_size=arguments["kernel_size"],
        strides=arguments.get("stride", 1),
        padding=arguments.get("padding", 0) if copies else 0,
        groups=arguments.get("groups", 1),
        copies=copies,
        scale=arguments.get("use_scale_branch", True),
        activation=gelu if arguments.get("use_act", True) else None,
        squeeze_excite=int(arguments["out_channels"] / 16) if arguments.get("use_se") else 0,
        **F64,
    )
    return Case(model, "original", 1)


def repmixer(meta: Meta) -> Case:
    arguments = meta["constructor"]
    return Case(RepMixer(arguments.get("kernel_size", 3), scale(arguments), **F64), "original", 1)


def repmixer_block(meta: Meta) -> Case:
    arguments = meta["constructor"]
    model = RepMixerBlock(
        arguments.get("kernel_size", 3), arguments.get("mlp_ratio", 4.0), scale(arguments), **F64
    )
    return Case(model, "original", 3)


def attention_block(meta: Meta) -> Case:
    """The official code fuses nothing in it: its deploy form is its train form."""
    arguments = meta["constructor"]
    model = AttentionBlock(arguments.get("mlp_ratio", 4.0), layer_scale=scale(arguments), **F64)
    return Case(model, "original", 4, loads_deploy=False)


def large_kernel(meta: Meta) -> Case:
    """Its activation is computed and thrown away."""
    arguments = meta["constructor"]
    model = ReparamLargeKernelConv(
        arguments["out_channels"],
        kernel_size=arguments["kernel_size"],
        small_kernel_size=arguments["small_kernel"],
        strides=arguments["stride"],
        groups=arguments["groups"],
        **F64,
    )
    return Case(model, "original", 1)


def patch_embed(meta: Meta) -> Case:
    arguments = meta["constructor"]
    model = PatchEmbed(
        arguments["embed_dim"],
        kernel_size=arguments["patch_size"],
        strides=arguments["stride"],
        **F64,
    )
    return Case(model, "original", 2)


def repcpe(meta: Meta) -> Case:
    size = position_kernel(meta["constructor"].get("spatial_shape", 7))
    return Case(RepCPE(size, **F64), "original", 1)


def position_kernel(value: Any) -> int | None:
    """Size of a positional encoding, however it is written down; 7 where it is not."""
    if value is None or value == "None":
        return None
    sizes = {int(number) for number in re.findall(r"\d+", json.dumps(value))} or {7}
    assert len(sizes) == 1, "the official code pads both axes by half the first size"
    return sizes.pop()


def shared(arguments: Meta) -> dict[str, Any]:
    """What both constructors of the network call the same."""
    return {
        "depths": tuple(arguments["layers"]),
        "widths": tuple(arguments["embed_dims"]),
        "ratios": tuple(arguments["mlp_ratios"]),
        "token_mixers": tuple(arguments["token_mixers"]),
        "mixer_kernel": arguments.get("repmixer_kernel_size", 3),
        "patch_kernel": arguments.get("down_patch_size", 7),
        "patch_strides": arguments.get("down_stride", 2),
        "head_ratio": arguments.get("cls_ratio", 2.0),
        "position_kernels": tuple(
            map(position_kernel, arguments.get("pos_embs") or [None] * len(arguments["layers"]))
        ),
    }


def case(config: FastViTConfig, arguments: Meta, naming: str) -> Case:
    model = FastViT(
        config=config,
        num_classes=arguments.get("num_classes", 1000),
        in_channels=arguments.get("in_chans", 3),
        **F64,
    )
    blocks = {"repmixer": 3, "attention": 4}
    stages = range(len(config.depths))
    convolutions = 4  # the stem and the last block
    convolutions += sum(
        depth * blocks[mixer]
        for depth, mixer in zip(config.depths, config.token_mixers, strict=True)
    )
    convolutions += 2 * sum(config.downsampled(stage) for stage in stages)
    convolutions += sum(kernel is not None for kernel in config.position_kernels)
    return Case(model, naming, convolutions)


def network(meta: Meta) -> Case:
    """Its `downsamples` say what comes after a stage."""
    arguments = meta["constructor"]
    after = arguments.get("downsamples") or [True] * len(arguments["layers"])
    config = FastViTConfig(
        downsamples=(False, *after[:-1]), layer_scale=scale(arguments), **shared(arguments)
    )
    return case(config, arguments, "original")


def timm_network(meta: Meta) -> Case:
    arguments = meta["constructor"]
    stages = len(arguments["layers"])
    config = FastViTConfig(
        downsamples=tuple(arguments.get("downsamples", (False, True, True, True))),
        layer_scale=arguments.get("layer_scale_init_value", 1e-5),
        patch_squeeze_excite=tuple(arguments.get("se_downsamples", (False,) * stages)),
        patch_activation=arguments.get("lkc_use_act", False),
        stem_scale=arguments.get("stem_use_scale_branch", True),
        attention_norm="layer" if "LayerNorm" in arguments.get("norm_layer", "") else "batch",
        squeeze_excite_divisor=1,
        **shared(arguments),
    )
    return case(config, arguments, "timm")


BUILDERS = {
    ("FastViT", "MobileOneBlock"): mobileone_block,
    ("FastViT", "RepMixer"): repmixer,
    ("FastViT", "RepMixerBlock"): repmixer_block,
    ("FastViT", "AttentionBlock"): attention_block,
    ("FastViT", "ReparamLargeKernelConv"): large_kernel,
    ("FastViT", "PatchEmbed"): patch_embed,
    ("FastViT", "RepCPE"): repcpe,
    ("FastViT", "FastViT"): network,
    ("FastViT", "FastVit"): timm_network,
}
