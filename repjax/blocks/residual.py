"""The block that started the project: 3x3 + 1x1 + the input, each with its bias, no norm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from repjax.blocks.repconv import RepConv
from repjax.branches import Branch, Identity, KxK, Pointwise


class ResidualConv(RepConv):
    """``y = conv3x3(x) + conv1x1(x) + x``, convolutions with biases, no norm.

    A `RepConv` with these defaults; its arguments are those of `RepConv`.

    Source: Ding et al., RepVGG, CVPR 2021, without batch norm.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x = jnp.ones((1, 9, 9, 2))
        >>> variables = jax.eval_shape(ResidualConv(2).init, jax.random.key(0), x)
        >>> list(variables["params"])
        ['y=conv3x3[bias]+conv1x1[bias]+identity']
    """

    branches: Sequence[Branch] = (KxK(3), Pointwise(), Identity())
    norm: Literal["branch", "sum"] | None = None
