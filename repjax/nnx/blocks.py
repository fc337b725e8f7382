"""The families that are one convolution when deployed, as NNX modules.

A block is a `RepConv`, the gate where there is one, and an activation. What its branches are,
its fields, their defaults and the paper are those of the Linen block that it names, so a family
is one line.
"""

from __future__ import annotations

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from repjax import blocks
from repjax.blocks import block as linen
from repjax.nnx.repconv import RepConv, abstract, hashable


class ConvBlock(nnx.Module):
    """A block that is one convolution when deployed, with a gate and an activation after it.

    A family says in `linen` which Linen block it is; one of your own that derives from
    `repjax.blocks.block.ConvBlock` becomes an NNX module in the same way. The convolution
    lives in `conv`, a squeeze-excite in `squeeze_excite`.

    Args:
        in_features: input channels.
        features: output channels.
        use_running_average: whether it begins in inference.
        rngs: its stream `params` initializes parameters.
        **fields: all other fields of the Linen block, with its defaults: `kernel_size`,
            `strides`, `padding`, `groups`, `activation`, ...

    Attributes:
        linen: the Linen block.
        description: that block with these fields.

    Raises:
        ValueError: fields that do not fit, or a gate with a norm after it (through
            `nnx.bridge.ToNNX` there is one).

    Example:
        >>> block = RepVGGBlock(4, 8, strides=2, rngs=nnx.Rngs(0))
        >>> block(jnp.ones((1, 8, 8, 4))).shape
        (1, 4, 4, 8)
        >>> class Mine(ConvBlock):
        ...     linen = blocks.RepVGGBlock
        >>> list(nnx.state(Mine(4, 4, rngs=nnx.Rngs(0)).conv))
        ['y=norm(conv3x3)+norm(conv1x1)+norm(identity)']
    """

    linen: ClassVar[type[linen.ConvBlock]] = linen.ConvBlock

    def __init__(
        self,
        in_features: int,
        features: int,
        *,
        use_running_average: bool = False,
        rngs: nnx.Rngs,
        **fields: Any,
    ) -> None:
        description = self.description = self.linen(features, **hashable(fields))
        self.conv = RepConv(
            in_features,
            use_running_average=use_running_average,
            rngs=rngs,
            **description.convolution(in_features),
        )
        if description.squeeze_excite:
            if self.linen.gated is not linen.ConvBlock.gated:
                raise ValueError(
                    f"{self.linen.__name__} has a norm of its own after its gate; use "
                    f"nnx.bridge.ToNNX(repjax.blocks.{self.linen.__name__}(...))"
                )
            self.squeeze_excite = Layer(
                description.squeeze_excite_layer(parent=None),
                abstract((1, 1, 1, features), description.param_dtype),
                rngs,
            )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply to data (batch..., spatial..., in_features)."""
        y = self.conv(x)
        if self.description.squeeze_excite:
            y = self.squeeze_excite(y)
        activation = self.description.activation
        return y if activation is None else activation(y)


class Layer(nnx.Module):
    """A Linen layer without statistics, its parameters held as NNX variables.

    Args:
        layer: the Linen layer.
        x: data it may see, abstract.
        rngs: its stream `params` initializes parameters.

    Example:
        >>> layer = Layer(nn.Dense(3), jax.ShapeDtypeStruct((1, 2), jnp.float32), nnx.Rngs(0))
        >>> layer.kernel.shape
        (2, 3)
    """

    def __init__(self, layer: nn.Module, x: jax.ShapeDtypeStruct, rngs: nnx.Rngs) -> None:
        self.layer = layer
        params = layer.lazy_init(rngs.params(), x)["params"]
        for name, node in jax.tree.map(nnx.Param, params).items():
            setattr(self, name, nnx.Dict(node) if isinstance(node, dict) else node)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply to data of the kind it was made for."""
        params = nnx.to_pure_dict(nnx.state(self))
        y: Any = self.layer.apply({"params": params}, x)
        return jnp.asarray(y)


class RepVGGBlock(ConvBlock):
    """``activation(norm(conv3x3(x)) + norm(conv1x1(x)) + norm(x))``."""

    linen = blocks.RepVGGBlock


class MobileOneBlock(ConvBlock):
    """``activation(norm(convKxK(x)) * n + norm(conv1x1(x)) + norm(x))``, n copies of KxK."""

    linen = blocks.MobileOneBlock


class YOLORepConv(ConvBlock):
    """A `RepVGGBlock` with SiLU and the norms of the YOLO detectors."""

    linen = blocks.YOLORepConv


class QARepVGGBlock(ConvBlock):
    """``activation(norm(norm(conv3x3(x)) + conv1x1(x) + x))``."""

    linen = blocks.QARepVGGBlock


class DiverseBranchBlock(ConvBlock):
    """A KxK convolution with three branches beside it, of different depth."""

    linen = blocks.DiverseBranchBlock


class ACBlock(ConvBlock):
    """``norm(convKxK(x)) + norm(convKx1(x)) + norm(conv1xK(x))``."""

    linen = blocks.ACBlock


class OREPABlock(ConvBlock):
    """Six scaled linear branches, merged while trained, and one norm."""

    linen = blocks.OREPABlock


class OREPAPointwiseBlock(ConvBlock):
    """A scaled 1x1 convolution and a scaled chain of two, merged, and one norm."""

    linen = blocks.OREPAPointwiseBlock


class OREPALargeBlock(ConvBlock):
    """A chain of OREPA's 3x3 sums as one large kernel, merged, and one norm."""

    linen = blocks.OREPALargeBlock


class OREPARepVGGBlock(ConvBlock):
    """RepVGG's block with OREPA's branches in place of the 3x3."""

    linen = blocks.OREPARepVGGBlock
