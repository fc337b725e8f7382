"""The QARepVGG block: batch norm after the sum, so that the merged weights quantize well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from repjax.algebra.padding import Padding
from repjax.blocks.block import PYTORCH_KERNEL_INIT, Block
from repjax.blocks.repconv import Initializer, RepConv
from repjax.blocks.squeeze_excite import SqueezeExcite
from repjax.branches import AveragePool, Branch, Identity, KxK, Norm, Pointwise


class QARepVGGBlock(Block):
    """``activation(norm(norm(conv3x3(x)) + conv1x1(x) + x))``.

    The identity branch is there only where shapes allow it (strides of 1, as many channels
    in as out). All norms are folded. With a squeeze-excite between the sum and the last
    norm, that norm stays in the deploy form: it comes after something that is not affine.

    Args:
        features: output channels.
        version: 1 has a norm on every branch as well, 2 on the 3x3 branch alone.
        average: whether there is also an average pool where there is an identity (YOLOv6).
        kernel_size: of the larger convolution.
        strides: one number.
        padding: of the fused convolution; None keeps the size where strides are 1.
        groups: channel groups of both convolutions.
        activation: applied last; None leaves it out.
        squeeze_excite: hidden channels of a squeeze-excite; 0 leaves it out.
        square_window: of the squeeze-excite, see `SqueezeExcite`.
        epsilon: of the norms (YOLOv6: 1e-3).
        kernel_init: initialiser of the kernels.
        momentum, axis_name, dtype, param_dtype, precision, deployed: see `Block`.

    Source: Chu et al., Make RepVGG Greater Again: A Quantization-aware Approach, AAAI 2024.

    Example:
        >>> variables = QARepVGGBlock(4).init(jax.random.key(0), jnp.ones((1, 8, 8, 4)))
        >>> list(variables["params"]["conv"])
        ['y=norm(norm(conv3x3)+conv1x1+identity)']
    """

    features: int
    version: Literal[1, 2] = 2
    average: bool = False
    kernel_size: int = 3
    strides: int = 1
    padding: Padding | None = None
    groups: int = 1
    activation: Callable[[jax.Array], jax.Array] | None = nn.relu
    squeeze_excite: int = 0
    square_window: bool = False
    epsilon: float = 1e-5
    kernel_init: Initializer = PYTORCH_KERNEL_INIT

    def branches(self, in_features: int) -> tuple[Branch, ...]:
        """What is added up, for that many input channels."""
        branches: list[Branch] = [KxK(self.kernel_size), Pointwise()]
        preserving = self.strides == 1 and in_features == self.features
        if preserving:
            branches.append(Identity())
        if preserving and self.average:
            branches.append(AveragePool(self.kernel_size))
        normed = len(branches) if self.version == 1 else 1
        return tuple(
            Norm(branch, self.epsilon) if number < normed else branch
            for number, branch in enumerate(branches)
        )

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply to data (batch..., height, width, channels)."""
        y = RepConv(
            self.features,
            branches=self.branches(x.shape[-1]),
            norm=None if self.squeeze_excite else "sum",
            use_bias=False,
            strides=self.strides,
            padding=self.padding,
            groups=self.groups,
            epsilon=self.epsilon,
            kernel_init=self.kernel_init,
            name="conv",
            **self.common,
        )(x, train)
        if self.squeeze_excite:
            y = SqueezeExcite(
                self.squeeze_excite,
                square_window=self.square_window,
                name="squeeze_excite",
                **self.types,
            )(y)
            y = nn.BatchNorm(
                use_running_average=not train,
                momentum=self.momentum,
                epsilon=self.epsilon,
                axis_name=self.axis_name,
                dtype=self.dtype,
                param_dtype=self.param_dtype,
                force_float32_reductions=jnp.dtype(self.param_dtype) != jnp.float64,
                name="norm",
            )(y)
        return y if self.activation is None else self.activation(y)
