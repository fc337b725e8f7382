"""Global response normalization: channels compete by their norms over the whole map."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax.typing import DTypeLike


class GlobalResponseNorm(nn.Module):
    """``x * (1 + scale * n / mean(n)) + bias``, n the norm of each channel over the map.

    It is not affine in its input, so it stays in the deploy form. Only its bias can be merged:
    into a linear layer that follows; this one then has none (``use_bias=False``).

    Args:
        use_bias: whether it has a trained bias per channel.
        dims: number of spatial axes.
        epsilon: added to the mean of the norms.
        dtype: compute type; None promotes. Norms are taken in float32 at least.
        param_dtype: type of the parameters.

    Source: Woo et al., ConvNeXt V2, CVPR 2023.

    Example:
        >>> x = jnp.ones((1, 4, 4, 8))
        >>> norm = GlobalResponseNorm()
        >>> variables = norm.init(jax.random.key(0), x)  # zeros: the identity at first
        >>> bool((norm.apply(variables, x) == x).all())
        True
    """

    use_bias: bool = True
    dims: int = 2
    epsilon: float = 1e-6
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply to data (batch..., spatial..., channels)."""
        zeros = nn.initializers.zeros_init()
        shape = (x.shape[-1],)
        scale = self.param("scale", zeros, shape, self.param_dtype)
        bias = self.param("bias", zeros, shape, self.param_dtype) if self.use_bias else None
        x, scale, bias = promote_dtype(x, scale, bias, dtype=self.dtype)
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        spatial = tuple(range(-1 - self.dims, -1))
        norms = _root(jnp.sum(jnp.square(wide), axis=spatial, keepdims=True))
        relative = norms / (norms.mean(axis=-1, keepdims=True) + self.epsilon)
        y: jax.Array = x * (1 + scale * relative.astype(x.dtype))
        return y if bias is None else y + bias


def _root(squares: jax.Array) -> jax.Array:
    """The square root, with the gradient zero at zero: a dead channel must not give NaN."""
    positive = squares > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1)), 0)
