"""The re-parameterized convolution of the YOLO detectors: a RepVGG block with its settings."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax

from repjax.blocks.repvgg import RepVGGBlock


class YOLORepConv(RepVGGBlock, kw_only=True):
    """``silu(norm(conv3x3(x)) + norm(conv1x1(x)) + norm(x))`` with the norms of the YOLOs.

    A `RepVGGBlock` with an epsilon of 1e-3 and PyTorch's momentum of 0.03; its arguments are
    those of `RepVGGBlock`. YOLOv7 has SiLU, YOLOv6 ReLU.

    Source: Wang et al., YOLOv7, CVPR 2023; Li et al., YOLOv6, 2022.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.ones((1, 8, 8, 2))
        >>> variables = jax.eval_shape(YOLORepConv(4).init, jax.random.key(0), x)
        >>> list(variables["params"]["conv"])
        ['y=norm[epsilon=1e-3](conv3x3)+norm[epsilon=1e-3](conv1x1)']
    """

    activation: Callable[[jax.Array], jax.Array] | None = nn.silu
    epsilon: float = 1e-3
    momentum: float = 0.97
