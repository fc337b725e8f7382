"""The blocks of RepGhost: a pointwise convolution, then a depthwise one beside an identity."""

from __future__ import annotations

import flax.linen as nn
import jax

from repjax.blocks.block import Block
from repjax.blocks.squeeze_excite import rounded_width
from repjax.branches import Branch, Identity, KxK, Norm


class RepGhostModule(Block):
    """``relu(norm(conv3x3(z)) + norm(z))`` with ``z = relu(norm(conv1x1(x)))``.

    The first convolution, node `primary`, is dense; the second, node `cheap`, depthwise.

    Args:
        features: output channels of both convolutions.
        kernel_size: of the first convolution.
        cheap_kernel_size: of the second.
        strides: of the first.
        relu: whether both are followed by a ReLU.
        norm_branch: whether the second has ``norm(z)`` beside it.
        identity_branch: whether it has ``z`` beside it.

    The other arguments are those of `Block`.

    Source: Chen et al., RepGhost, arXiv 2211.06088, 2022.

    Example:
        >>> import jax.numpy as jnp
        >>> module = RepGhostModule(4)
        >>> variables = jax.eval_shape(module.init, jax.random.key(0), jnp.ones((1, 8, 8, 2)))
        >>> {name: list(node)[0] for name, node in variables["params"].items()}
        {'cheap': 'y=norm(conv3x3)+norm(identity)', 'primary': 'y=norm(conv1x1)'}
    """

    features: int
    kernel_size: int = 1
    cheap_kernel_size: int = 3
    strides: int = 1
    relu: bool = True
    norm_branch: bool = True
    identity_branch: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply to data (batch..., height, width, channels)."""
        size, cheap = self.kernel_size, self.cheap_kernel_size
        x = self.rep_conv(
            "primary",
            self.features,
            branches=(KxK(size, tap=size // 2),),
            strides=self.strides,
            padding=size // 2,
        )(x, train)
        x = nn.relu(x) if self.relu else x
        branches: list[Branch] = [Norm(KxK(cheap, tap=cheap // 2))]
        branches += [Norm(Identity())] * self.norm_branch + [Identity()] * self.identity_branch
        x = self.rep_conv(
            "cheap",
            self.features,
            branches=branches,
            norm=None,
            use_bias=False,
            padding=cheap // 2,
            groups=self.features,
        )(x, train)
        return nn.relu(x) if self.relu else x


class RepGhostBottleneck(Block):
    """``shortcut(x) + ghost2(excite(depthwise(ghost1(x))))``.

    The depthwise convolution is there where strides are not 1, the gate where
    `squeeze_excite` is not 0. The shortcut is the input itself where shapes allow it, else a
    depthwise and a pointwise convolution.

    Args:
        hidden: channels between the two modules.
        features: output channels.
        kernel_size: of the depthwise convolution and of the shortcut's.
        strides: of both.
        squeeze_excite: channels of the gate, as a fraction of `hidden`; 0 leaves it out.
        shortcut: whether an input that could be added as it is, is added.
        norm_branch: of the modules.
        identity_branch: of the modules.

    The other arguments are those of `Block`.

    Source: Chen et al., RepGhost, arXiv 2211.06088, 2022.

    Example:
        >>> import jax.numpy as jnp
        >>> block = RepGhostBottleneck(8, 6, strides=2, squeeze_excite=0.25)
        >>> params = jax.eval_shape(block.init, jax.random.key(0), jnp.ones((1, 8, 8, 4)))["params"]
        >>> sorted(params)[:4]
        ['depthwise', 'ghost1', 'ghost2', 'shortcut_depthwise']
    """

    hidden: int
    features: int
    kernel_size: int = 3
    strides: int = 1
    squeeze_excite: float = 0.0
    shortcut: bool = True
    norm_branch: bool = True
    identity_branch: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply to data (batch..., height, width, channels)."""
        y = self._ghost("ghost1", self.hidden, relu=True)(x, train)
        if self.strides != 1:
            y = self._depthwise("depthwise", y, train)
        if self.squeeze_excite:
            width = rounded_width(self.hidden * self.squeeze_excite, 4)
            y = self.gate(width, gate=nn.hard_sigmoid)(y)
        y = self._ghost("ghost2", self.features, relu=False)(y, train)
        if self.strides == 1 and x.shape[-1] == self.features:
            return y + x if self.shortcut else y
        x = self._depthwise("shortcut_depthwise", x, train)
        return y + self.rep_conv("shortcut_pointwise", self.features, branches=(KxK(1),))(x, train)

    def _ghost(self, name: str, features: int, *, relu: bool) -> RepGhostModule:
        return RepGhostModule(
            features,
            relu=relu,
            norm_branch=self.norm_branch,
            identity_branch=self.identity_branch,
            **self.common,
            name=name,
        )

    def _depthwise(self, name: str, x: jax.Array, train: bool) -> jax.Array:
        conv = self.rep_conv(
            name,
            x.shape[-1],
            branches=(KxK(self.kernel_size),),
            strides=self.strides,
            padding=(self.kernel_size - 1) // 2,
            groups=x.shape[-1],
        )
        return conv(x, train)
