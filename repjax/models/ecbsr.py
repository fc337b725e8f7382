"""ECBSR: plain networks of edge-oriented blocks for super-resolution on phones."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from repjax.blocks.block import Block
from repjax.blocks.ecb import ECB


@dataclasses.dataclass(frozen=True)
class ECBSRConfig:
    """Sizes of an ECBSR network.

    Args:
        modules: blocks between the first and the last.
        features: channels of all but the last.
        scale: factor of the resolution.
        identity: whether blocks add their input.
        activation: "prelu", or the name of a function in `jax.nn`.
    """

    modules: int = 4
    features: int = 8
    scale: int = 2
    identity: bool = False
    activation: str = "prelu"


CONFIGS = {
    f"ecbsr_m4c{features}_x{scale}": ECBSRConfig(4, features, scale)
    for features in (8, 16)
    for scale in (2, 4)
}


class ECBSR(Block):
    """Blocks at the low resolution, the input added, and pixels in place of channels.

    ``y = pixel_shuffle(blocks(x) + x)``, where x is repeated to the ``scale**2`` pixels of
    each color, so that the blocks learn what nearest-neighbor interpolation lacks. Blocks
    are `block0`, `block1`, ...; the last one has no activation.

    Args:
        config: sizes; `CONFIGS` has the published ones.
        in_channels: colors; the published networks take the luma channel alone.

    The other arguments are those of `Block`.

    Source: Zhang et al., Edge-oriented Convolution Block for Real-time Super Resolution on
    Mobile Devices, ACM MM 2021.

    Example:
        >>> model = ECBSR(CONFIGS["ecbsr_m4c8_x2"])
        >>> image = jnp.ones((1, 6, 8, 1))
        >>> y, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
        >>> y.shape
        (1, 12, 16, 1)
    """

    config: ECBSRConfig = ECBSRConfig()
    in_channels: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply to images (batch..., height, width, colors)."""
        if x.ndim < 3 or x.shape[-1] != self.in_channels:
            raise ValueError(
                f"this network takes (batch..., height, width, {self.in_channels}), found "
                f"{x.shape}; in_channels= makes it take others"
            )
        config = self.config
        activation: Any = config.activation
        if activation != "prelu":
            activation = getattr(jax.nn, activation)
        last = self.in_channels * config.scale**2
        widths = [config.features] * (config.modules + 1) + [last]
        y = x
        for number, width in enumerate(widths):
            y = ECB(
                width,
                identity=config.identity,
                activation=activation if number <= config.modules else None,
                name=f"block{number}",
                **self.common,
            )(y, train)
        return pixel_shuffle(y + jnp.repeat(x, config.scale**2, axis=-1), config.scale)


def pixel_shuffle(x: jax.Array, scale: int) -> jax.Array:
    """Channels (color, row, column) become rows and columns of a finer image.

    Args:
        x: (batch..., height, width, colors * scale * scale).
        scale: pixels per pixel, along each axis.

    Returns:
        (batch..., height * scale, width * scale, colors).

    Example:
        >>> pixel_shuffle(jnp.arange(4.0).reshape(1, 1, 4), 2)[..., 0]
        Array([[0., 1.],
               [2., 3.]], dtype=float32)
    """
    *batch, height, width, channels = x.shape
    y = x.reshape(*batch, height, width, channels // scale**2, scale, scale)
    lead = range(len(batch))
    places = [len(batch) + axis for axis in (0, 3, 1, 4, 2)]
    y = y.transpose(*lead, *places)
    return y.reshape(*batch, height * scale, width * scale, channels // scale**2)
