"""Batch norm as every block and network has it."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike


def batch_norm(
    train: bool,
    *,
    momentum: float,
    axis_name: str | None,
    dtype: DTypeLike | None,
    param_dtype: DTypeLike,
    epsilon: float = 1e-5,
    **fields: Any,
) -> nn.BatchNorm:
    """A batch norm that normalizes with statistics of the batch where it trains.

    Statistics are float32 at least, and float64 where parameters are (Flax alone would round
    them down).

    Args:
        train: whether it normalizes with the batch's statistics and updates the running ones.
        momentum: of the running statistics.
        axis_name: mapped axis over which batch statistics are averaged.
        dtype: compute type; None promotes.
        param_dtype: type of the parameters.
        epsilon: added to the variance.
        **fields: others of `flax.linen.BatchNorm`.

    Source: Ioffe and Szegedy, Batch Normalization, ICML 2015.

    Example:
        >>> types = {"dtype": None, "param_dtype": jnp.float32}
        >>> batch_norm(True, momentum=0.9, axis_name=None, **types).use_running_average
        False
    """
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=momentum,
        epsilon=epsilon,
        axis_name=axis_name,
        dtype=dtype,
        param_dtype=param_dtype,
        force_float32_reductions=jnp.dtype(param_dtype) != jnp.float64,
        **fields,
    )
