"""The error of a rewrite that would not be exact."""

from __future__ import annotations


class NotFusableError(ValueError):
    """Raised when a rewrite would not be equal in real arithmetic, borders included.

    The message gives the reason in words and the geometries involved. It is a
    `ValueError`, raised at trace time: no value has to be computed to know it.

    Example:
        >>> import jax.numpy as jnp
        >>> from repjax.algebra import Conv, add
        >>> one, two = Conv(jnp.ones((1, 4, 4))), Conv(jnp.ones((1, 4, 4)), strides=2)
        >>> add(one, two)  # doctest: +IGNORE_EXCEPTION_DETAIL
        Traceback (most recent call last):
        NotFusableError: cannot add: strides differ ...
    """
