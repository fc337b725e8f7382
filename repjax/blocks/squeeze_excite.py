"""Squeeze-and-excitation: a gate per channel, computed from the mean over the map."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from repjax.blocks.fields import require_whole


def rounded_width(channels: float, divisor: int, round_limit: float = 0.9) -> int:
    """The multiple of `divisor` nearest to a width, at least one; never under `round_limit`.

    Args:
        channels: wanted width.
        divisor: 1 rounds to the nearest whole number.
        round_limit: if the multiple is smaller than this fraction, the next one is taken.

    Example:
        >>> rounded_width(20, 8), rounded_width(3, 8)
        (24, 8)
    """
    nearest = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < round_limit * channels else nearest


class SqueezeExcite(nn.Module):
    """``x * gate(expand(relu(reduce(mean(x)))))``, a gate per channel.

    Args:
        hidden: channels between the two linear maps, named `reduce` and `expand`.
        gate: a function with values from 0 to 1, a sigmoid by default.
        activation: after `reduce`.
        use_bias: whether both maps have a bias.
        square_window: average only over the top square of the map, as the RepVGG code does
            on maps higher than wide; maps wider than high are refused.
        dtype: compute type; None promotes.
        param_dtype: type of the parameters.
        precision: of the products.

    Raises:
        ValueError: `square_window` on a map that is wider than high, or twice as high.

    Source: Hu et al., Squeeze-and-Excitation Networks, CVPR 2018.

    Example:
        >>> layer = SqueezeExcite(2)
        >>> variables = jax.eval_shape(layer.init, jax.random.key(0), jnp.ones((1, 8, 8, 4)))
        >>> sorted(variables["params"])
        ['expand', 'reduce']
    """

    hidden: int
    gate: Callable[[jax.Array], jax.Array] = nn.sigmoid
    activation: Callable[[jax.Array], jax.Array] = nn.relu
    use_bias: bool = True
    square_window: bool = False
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32
    precision: lax.PrecisionLike = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply to data (batch..., height, width, channels)."""
        require_whole("hidden", self.hidden)
        pooled = self._window(x).mean(axis=(-3, -2))
        hidden = self.activation(self._dense("reduce", self.hidden)(pooled))
        gate = self.gate(self._dense("expand", x.shape[-1])(hidden))
        return x * gate[..., None, None, :]

    def _dense(self, name: str, features: int) -> nn.Dense:
        precision: Any = self.precision
        return nn.Dense(
            features,
            use_bias=self.use_bias,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            precision=precision,
            name=name,
        )

    def _window(self, x: jax.Array) -> jax.Array:
        height, width = x.shape[-3:-1]
        if not self.square_window or height == width:
            return x
        if not width <= height < 2 * width:
            raise ValueError(
                f"the square window of side {width} has no single place on a map of "
                f"{height}x{width}; square_window=False averages over the whole map"
            )
        return x[..., :width, :, :]
