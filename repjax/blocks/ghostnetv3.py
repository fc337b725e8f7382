"""The blocks of GhostNetV3: half of the channels from a pointwise sum, half a depthwise one."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from repjax.blocks.block import Block
from repjax.blocks.squeeze_excite import rounded_width
from repjax.branches import Branch, Identity, KxK, Pointwise


class GhostModuleV3(Block):
    """``concatenate(y, relu(3 * norm(conv3x3(y)) + norm(conv1x1(y)) + norm(y)))``.

    There ``y = relu(3 * norm(conv1x1(x)))`` has half of the channels, and ``3 *`` stands for
    three convolutions with weights of their own. The first sum, node `primary`, is dense; the
    second, node `cheap`, depthwise. The gate is a sigmoid of a pointwise, a 1x5 and a 5x1
    convolution of the input at half the resolution; its map is repeated to the whole one and
    multiplied in. The official code puts ``norm(x)`` beside the first sum where channels allow
    it; no published width does.

    Args:
        features: output channels, an even number.
        copies: of the larger kernel of each sum.
        relu: whether both sums are followed by a ReLU.
        gated: whether the gate is there.

    The other arguments are those of `Block`.

    Raises:
        ValueError: an odd number of features, or a gate on data of a single row or column.

    Source: Liu et al., GhostNetV3, arXiv 2404.11202, 2024.

    Example:
        >>> module = GhostModuleV3(4)
        >>> variables = jax.eval_shape(module.init, jax.random.key(0), jnp.ones((1, 8, 8, 6)))
        >>> {name: list(node)[0] for name, node in variables["params"].items()}
        {'cheap': 'y=3*norm(conv3x3)+norm(conv1x1)+norm(identity)', 'primary': 'y=3*norm(conv1x1)'}
    """

    features: int
    copies: int = 3
    relu: bool = True
    gated: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply to data (batch..., height, width, channels)."""
        if self.features % 2:
            raise ValueError(
                f"features is an even number, half of them ghosts; found {self.features}"
            )
        half = self.features // 2
        primary = self.rep_conv("primary", half, branches=(KxK(1),) * self.copies)
        branches: tuple[Branch, ...] = (*(KxK(3),) * self.copies, Pointwise(), Identity())
        cheap = self.rep_conv("cheap", half, branches=branches, groups=half)
        first = primary(x, train)
        first = nn.relu(first) if self.relu else first
        second = cheap(first, train)
        second = nn.relu(second) if self.relu else second
        y = jnp.concatenate([first, second], axis=-1)
        return y * self._gate(x, train) if self.gated else y

    def _gate(self, x: jax.Array, train: bool) -> jax.Array:
        height, width, _ = x.shape[-3:]
        if min(height, width) < 2:
            raise ValueError(
                f"the gate of a {type(self).__name__} averages over 2x2, found {height}x{width}; "
                "give larger images"
            )
        y = nn.avg_pool(x, window_shape=(2, 2), strides=(2, 2))  # type: ignore[no-untyped-call]
        y = self.rep_conv("gate_pointwise", self.features, branches=(KxK(1),))(y, train)
        for name, size in (("gate_row", (1, 5)), ("gate_column", (5, 1))):
            conv = self.rep_conv(name, self.features, branches=(KxK(size),), groups=self.features)
            y = conv(y, train)
        return repeated(nn.sigmoid(y), height, width)


def repeated(x: jax.Array, height: int, width: int) -> jax.Array:
    """A map enlarged to that size, each output the nearest input not after it.

    Args:
        x: data (batch..., rows, columns, channels).
        height: of the output, at least as many as rows.
        width: of the output, at least as many as columns.

    Example:
        >>> repeated(jnp.arange(2.0).reshape(1, 2, 1), 1, 5).ravel().tolist()
        [0.0, 0.0, 0.0, 1.0, 1.0]
    """
    rows, columns, _ = x.shape[-3:]
    x = jnp.take(x, np.arange(height) * rows // height, axis=-3, mode="clip")
    return jnp.take(x, np.arange(width) * columns // width, axis=-2, mode="clip")


class GhostBottleneckV3(Block):
    """``shortcut(x) + ghost2(excite(depthwise(ghost1(x))))``.

    The depthwise sum, ``3 * norm(convKxK(y)) + norm(conv1x1(y))``, is there where strides are
    not 1, the squeeze-excite where `squeeze_excite` is not 0. The shortcut is the input itself
    where shapes allow it, else a depthwise and a pointwise convolution.

    Args:
        hidden: channels between the two modules.
        features: output channels.
        kernel_size: of the depthwise sum and of the shortcut's convolution.
        strides: of both.
        squeeze_excite: channels of the squeeze-excite, as a fraction of `hidden`; 0 leaves it out.
        copies: of the larger kernel of each sum.
        gated: whether the first module has its gate.

    The other arguments are those of `Block`.

    Raises:
        ValueError: see `GhostModuleV3`.

    Source: Liu et al., GhostNetV3, arXiv 2404.11202, 2024.

    Example:
        >>> block = GhostBottleneckV3(8, 6, strides=2, squeeze_excite=0.25)
        >>> params = jax.eval_shape(block.init, jax.random.key(0), jnp.ones((1, 8, 8, 4)))["params"]
        >>> list(params["depthwise"])
        ['y=3*norm(conv3x3)+norm(conv1x1)']
    """

    hidden: int
    features: int
    kernel_size: int = 3
    strides: int = 1
    squeeze_excite: float = 0.0
    copies: int = 3
    gated: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply to data (batch..., height, width, channels)."""
        ghost1 = GhostModuleV3(
            self.hidden, self.copies, gated=self.gated, **self.common, name="ghost1"
        )
        y = ghost1(x, train)
        if self.strides != 1:
            branches = (*(KxK(self.kernel_size),) * self.copies, Pointwise())
            y = self._depthwise("depthwise", y, branches, train)
        if self.squeeze_excite:
            width = rounded_width(self.hidden * self.squeeze_excite, 4)
            y = self.gate(width, gate=nn.hard_sigmoid)(y)
        ghost2 = GhostModuleV3(self.features, self.copies, relu=False, **self.common, name="ghost2")
        y = ghost2(y, train)
        if self.strides == 1 and x.shape[-1] == self.features:
            return y + x
        x = self._depthwise("shortcut_depthwise", x, (KxK(self.kernel_size),), train)
        return y + self.rep_conv("shortcut_pointwise", self.features, branches=(KxK(1),))(x, train)

    def _depthwise(
        self, name: str, x: jax.Array, branches: tuple[Branch, ...], train: bool
    ) -> jax.Array:
        conv = self.rep_conv(
            name,
            x.shape[-1],
            branches=branches,
            strides=self.strides,
            padding=(self.kernel_size - 1) // 2,
            groups=x.shape[-1],
        )
        return conv(x, train)
