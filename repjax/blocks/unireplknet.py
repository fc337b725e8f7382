"""The blocks of UniRepLKNet: dilated small kernels beside a large one, and the full block."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
from jax.nn.initializers import Initializer

from repjax.blocks.block import Block, gelu
from repjax.blocks.drop_path import DropPath
from repjax.blocks.grn import GlobalResponseNorm
from repjax.branches import Branch, Identity, KxK, Norm, Scale, Sequence, Shift, Sum

# kernel size: (size, dilation) of each branch beside it
DILATED_BRANCHES = {
    17: ((5, 1), (9, 2), (3, 4), (3, 5), (3, 7)),
    15: ((5, 1), (7, 2), (3, 3), (3, 5), (3, 7)),
    13: ((5, 1), (7, 2), (3, 3), (3, 4), (3, 5)),
    11: ((5, 1), (5, 2), (3, 3), (3, 4), (3, 5)),
    9: ((5, 1), (5, 2), (3, 3), (3, 4)),
    7: ((5, 1), (3, 2), (3, 3)),
    5: ((3, 1), (3, 2)),
}
KERNEL_INIT: Initializer = nn.initializers.normal(0.02)  # published: cut at 100 deviations


def dilated_branches(kernel_size: int, epsilon: float = 1e-5) -> tuple[Norm, ...]:
    """The large kernel and the dilated ones beside it, a norm on each.

    Args:
        kernel_size: of the large kernel, one of `DILATED_BRANCHES`.
        epsilon: of the norms.

    Raises:
        ValueError: no branches are published for that size.

    Source: Ding et al., UniRepLKNet, CVPR 2024.

    Example:
        >>> [branch.resolve(2, use_bias=False).formula() for branch in dilated_branches(5)]
        ['norm(conv5x5)', 'norm(conv3x3)', 'norm(conv3x3[dilation=2])']
    """
    if kernel_size not in DILATED_BRANCHES:
        known = sorted(DILATED_BRANCHES)
        raise ValueError(f"kernel_size is one of {known} for dilated branches, found {kernel_size}")
    small = (KxK(size, dilation=step) for size, step in DILATED_BRANCHES[kernel_size])
    return tuple(Norm(branch, epsilon) for branch in (KxK(kernel_size), *small))


class DilatedReparamBlock(Block):
    """A large depthwise kernel, trained beside dilated small ones, a norm on each.

    The convolution lives in the node `conv`.

    Args:
        kernel_size: of the large kernel, one of `DILATED_BRANCHES`.
        epsilon: of the norms.
        kernel_init: initializer of the kernels.

    Raises:
        ValueError: no branches are published for that size.

    Source: Ding et al., UniRepLKNet, CVPR 2024.

    Example:
        >>> block = DilatedReparamBlock(5)
        >>> x = jax.ShapeDtypeStruct((1, 8, 8, 4), "float32")
        >>> list(jax.eval_shape(block.init, jax.random.key(0), x)["params"]["conv"])
        ['y=norm(conv5x5)+norm(conv3x3)+norm(conv3x3[dilation=2])']
    """

    kernel_size: int = 13
    epsilon: float = 1e-5
    kernel_init: Initializer = KERNEL_INIT

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply to data (batch..., height, width, channels)."""
        return self.rep_conv(
            "conv",
            x.shape[-1],
            branches=dilated_branches(self.kernel_size, self.epsilon),
            norm=None,
            use_bias=False,
            groups=x.shape[-1],
            kernel_init=self.kernel_init,
        )(x, train)


class UniRepLKNetBlock(Block):
    """A depthwise kernel with squeeze-excite, then an FFN, around a residual connection.

    ``x + drop_path(scale * norm(linear(grn(gelu(linear(excite(norm(depthwise(x)))))))))``.
    The depthwise convolution is `large_kernel` where it has dilated branches, `depthwise` where
    it has none. Deployed, it is one convolution with its norm; the bias of the response norm,
    the second linear layer, its norm and the layer scale are one pointwise convolution,
    `pointwise2`. Squeeze-excite, GELU and the scale of the response norm stay.

    Args:
        kernel_size: of the depthwise convolution: 7 and more has dilated branches
            (`DILATED_BRANCHES`), 3 and 5 have none, 0 leaves it and its norm out.
        ffn_ratio: hidden channels for each input channel.
        layer_scale: its initial value; None or 0 leaves it out.
        drop_path: rate of stochastic depth.
        epsilon: of the batch norms.
        kernel_init: initializer of kernels.

    Raises:
        ValueError: a kernel size that is neither 0, 3, 5 nor one with dilated branches.

    Source: Ding et al., UniRepLKNet, CVPR 2024.

    Example:
        >>> block = UniRepLKNetBlock(7)
        >>> x = jax.ShapeDtypeStruct((1, 8, 8, 4), "float32")
        >>> variables = jax.eval_shape(block.init, jax.random.key(0), x)
        >>> list(variables["params"]["large_kernel"])
        ['y=norm(norm(conv7x7)+norm(conv5x5)+norm(conv3x3[dilation=2])+norm(conv3x3[dilation=3]))']
        >>> list(jax.eval_shape(block.deploy().init, jax.random.key(0), x))
        ['params']
    """

    kernel_size: int = 13
    ffn_ratio: float = 4.0
    layer_scale: float | None = 1e-6
    drop_path: float = 0.0
    epsilon: float = 1e-5
    kernel_init: Initializer = KERNEL_INIT

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply to data (batch..., height, width, channels)."""
        features = x.shape[-1]
        hidden = int(features * self.ffn_ratio)
        bare: dict[str, Any] = {"norm": None, "use_bias": False, "kernel_init": self.kernel_init}
        y = x
        if self.kernel_size:
            name = "depthwise" if self.kernel_size in (3, 5) else "large_kernel"
            conv = self.rep_conv(
                name, features, branches=(self._spatial(),), groups=features, **bare
            )
            y = conv(y, train)
        y = self.gate(features // 4)(y)
        y = nn.Dense(hidden, kernel_init=self.kernel_init, name="pointwise1", **self.types)(y)
        y = GlobalResponseNorm(
            use_bias=False, dtype=self.dtype, param_dtype=self.param_dtype, name="response_norm"
        )(gelu(y))
        y = self.rep_conv(
            "pointwise2",
            features,
            branches=(self._pointwise(),),
            scale_init=nn.initializers.constant(self.layer_scale or 1.0),
            **bare,
        )(y, train)
        return x + DropPath(self.drop_path)(y, train)

    def _spatial(self) -> Branch:
        """The depthwise branches, with the block's norm around them."""
        if self.kernel_size in (3, 5):
            return Norm(KxK(self.kernel_size), self.epsilon)
        return Norm(Sum(dilated_branches(self.kernel_size, self.epsilon)), self.epsilon)

    def _pointwise(self) -> Branch:
        """The response norm's bias, the second linear layer, its norm and the layer scale."""
        linear = Norm(Sequence(Shift(Identity()), KxK(1)), self.epsilon)
        return Scale(linear) if self.layer_scale else linear
