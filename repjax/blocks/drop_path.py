"""Stochastic depth: a residual branch is dropped now and then while training."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp


class DropPath(nn.Module):
    """Zero with probability `rate`, else divided by ``1 - rate``; decided per example.

    In inference, and where `rate` is zero, the input itself; so blocks may carry it always.
    While training it draws from the `dropout` stream of random numbers.

    Args:
        rate: probability of dropping, at least 0 and below 1.
        dims: number of spatial axes; the axes before them are examples.

    Raises:
        ValueError: the rate is below 0, or 1 or more.

    Source: Huang et al., Deep Networks with Stochastic Depth, ECCV 2016.

    Example:
        >>> x = jnp.ones((1000, 2, 2, 1))
        >>> y = DropPath(0.2).apply({}, x, train=True, rngs={"dropout": jax.random.key(0)})
        >>> sorted(set(y.ravel().tolist())), 0.7 < (y > 0).mean() < 0.9
        ([0.0, 1.25], Array(True, dtype=bool))
    """

    rate: float = 0.0
    dims: int = 2

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply to data (batch..., spatial..., channels)."""
        if not 0 <= self.rate < 1:
            raise ValueError(f"rate of drop path: found {self.rate}, expected 0 <= rate < 1")
        if not train or self.rate == 0:
            return x
        examples = x.ndim - self.dims - 1
        shape = x.shape[:examples] + (1,) * (self.dims + 1)
        keep = jax.random.bernoulli(self.make_rng("dropout"), 1 - self.rate, shape)
        return jnp.where(keep, x / (1 - self.rate), jnp.zeros((), x.dtype))
