"""Online re-parameterization: scaled linear branches that run as one convolution in training.

The branches have no norms, one norm follows their sum. So their kernels are merged in every
training step (`Online`), and only one convolution ever sees the data.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import flax.linen as nn
import jax

from repjax.algebra.padding import Padding
from repjax.blocks.block import Block
from repjax.blocks.orepa_branches import KAIMING, NARROW, identity_init, linear_branches, scaled
from repjax.blocks.squeeze_excite import SqueezeExcite
from repjax.branches import Branch, Identity, KxK, Norm, Online, Pointwise, Sequence


class _Merged(Block):
    """What the blocks of this family share: geometry, and the one convolution."""

    features: int
    kernel_size: int = 3
    strides: int = 1
    padding: Padding | None = None
    dilation: int = 1
    groups: int = 1
    activation: Callable[[jax.Array], jax.Array] | None = None
    epsilon: float = 1e-5

    def branches(self, in_features: int) -> tuple[Branch, ...]:
        """What is added up, for that many input channels."""
        raise NotImplementedError

    def _merged(self, branch: Branch) -> Norm:
        return Norm(Online(branch), self.epsilon)

    def _convolve(self, x: jax.Array, train: bool) -> jax.Array:
        return self.conv(
            "conv",
            self.features,
            branches=self.branches(x.shape[-1]),
            norm=None,
            use_bias=False,
            strides=self.strides,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
        )(x, train)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply to data (batch..., height, width, channels)."""
        y = self._convolve(x, train)
        return y if self.activation is None else self.activation(y)


class OREPABlock(_Merged):
    """Six scaled linear branches and one norm: `linear_branches`, merged while trained.

    The means and cosines lie in the collection `fixed`. The convolution lives in the node
    `conv`.

    Args:
        features: output channels.
        kernel_size: of the larger kernels.
        strides: one number.
        padding: of the fused convolution; None keeps the size where strides are 1.
        dilation: of the block.
        groups: channel groups of all branches.
        activation: applied to the sum; None leaves it out.
        epsilon: of the norm.
        internal: channels between 1x1 and KxK; None is as many as come in, twice as many for
            more than 4 groups.
        momentum, axis_name, dtype, param_dtype, precision, deployed: see `Block`.

    Source: Hu et al., Online Convolutional Re-parameterization, CVPR 2022.

    Example:
        >>> import jax.numpy as jnp
        >>> variables = OREPABlock(4).init(jax.random.key(0), jnp.ones((1, 8, 8, 4)))
        >>> for branch in list(variables["params"]["conv"])[0].split("+scale"):
        ...     print(branch)
        y=norm(scale(conv3x3)
        (mean3x3(conv1x1))
        (cosine3x3(conv1x1))
        (conv3x3(conv1x1+eye1x1))
        (conv1x1)
        (conv1x1(depthwise3x3[multiplier=8])))
    """

    internal: int | None = None

    def branches(self, in_features: int) -> tuple[Branch, ...]:
        """The norm of the six."""
        internal = self.internal or in_features * (1 if self.groups <= 4 else 2)
        size = self.kernel_size
        return (self._merged(linear_branches(size, internal, KAIMING, pointwise=True)),)


class OREPAPointwiseBlock(_Merged):
    """A scaled 1x1 convolution and a scaled chain of two, merged while trained, and one norm.

    The convolution lives in the node `conv`. One convolution of the chain starts as the
    identity, and so adds no features.

    Args:
        features: output channels.
        kernel_size: 1.
        strides, padding, dilation, groups, activation, epsilon: as of `OREPABlock`.
        momentum, axis_name, dtype, param_dtype, precision, deployed: see `Block`.

    Source: Hu et al., Online Convolutional Re-parameterization, CVPR 2022.

    Example:
        >>> import jax.numpy as jnp
        >>> variables = OREPAPointwiseBlock(4).init(jax.random.key(0), jnp.ones((1, 8, 8, 2)))
        >>> list(variables["params"]["conv"])
        ['y=norm(scale(conv1x1)+scale(conv1x1(conv1x1)))']
    """

    kernel_size: int = 1

    def branches(self, in_features: int) -> tuple[Branch, ...]:
        """The norm of both."""
        one, unit = Pointwise(kernel_init=NARROW), Pointwise(kernel_init=identity_init)
        widens = self.features > in_features
        chain = Sequence(unit, one) if widens else Sequence(one, unit)
        internal = min(in_features, self.features)
        both = (one, Sequence(chain.first, chain.second, features=internal))
        return (self._merged(scaled(both, (1.0, 0.5))),)


class OREPALargeBlock(_Merged):
    """A chain of OREPA's 3x3 sums as one large kernel, merged while trained, and one norm.

    ``(kernel_size - 1) / 2`` links, without activations or borders between them. The
    convolution lives in the node `conv`.

    Args:
        features: output channels, of every link.
        kernel_size: of the chain, odd, 5 or more.
        strides, padding, dilation, groups, activation, epsilon: as of `OREPABlock`.
        branched: whether each link has OREPA's branches, or is one 3x3 convolution.
        momentum, axis_name, dtype, param_dtype, precision, deployed: see `Block`.

    Raises:
        ValueError: the kernel is even, or smaller than 5.

    Source: Hu et al., Online Convolutional Re-parameterization, CVPR 2022 (the linear deep
    stem). The authors' code correlates the kernels where a chain convolves them, which is
    the same block with mirrored kernels from the second link on.

    Example:
        >>> import jax.numpy as jnp
        >>> block = OREPALargeBlock(4, kernel_size=7, branched=False)
        >>> list(block.init(jax.random.key(0), jnp.ones((1, 8, 8, 3)))["params"]["conv"])
        ['y=norm(conv3x3(conv3x3(conv3x3)))']
    """

    kernel_size: int = 7
    branched: bool = True

    def branches(self, in_features: int) -> tuple[Branch, ...]:
        """The norm of the chain."""
        if self.kernel_size < 5 or self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is odd and at least 5; found {self.kernel_size}")
        widths = [in_features] + [self.features] * (self.kernel_size // 2 - 1)
        if self.branched:
            links: list[Branch] = [
                linear_branches(3, width, KAIMING, pointwise=True) for width in widths
            ]
        else:
            links = [KxK(3)] * len(widths)
        return (self._merged(functools.reduce(Sequence, links)),)


class OREPARepVGGBlock(_Merged):
    """RepVGG's block with OREPA's branches in place of the 3x3: three norms, three kernels.

    ``activation(norm(merged(x)) + norm(conv1x1(x)) + norm(x))``; the identity is there only
    where shapes allow it. The convolution lives in the node `conv`.

    Args:
        features: output channels.
        kernel_size: of the larger kernels.
        strides, padding, dilation, groups, activation, epsilon: as of `OREPABlock`.
        squeeze_excite: hidden channels of a squeeze-excite; 0 leaves it out.
        square_window: of the squeeze-excite, see `SqueezeExcite`.
        momentum, axis_name, dtype, param_dtype, precision, deployed: see `Block`.

    Source: Hu et al., Online Convolutional Re-parameterization, CVPR 2022.

    Example:
        >>> import jax.numpy as jnp
        >>> block = OREPARepVGGBlock(4)
        >>> variables = block.init(jax.random.key(0), jnp.ones((1, 8, 8, 4)))
        >>> list(variables["params"]["conv"])[0].split("+")[-2:]
        ['norm(conv1x1)', 'norm(identity)']
    """

    activation: Callable[[jax.Array], jax.Array] | None = nn.relu
    squeeze_excite: int = 0
    square_window: bool = False

    def branches(self, in_features: int) -> tuple[Branch, ...]:
        """The three norms."""
        merged = linear_branches(self.kernel_size, in_features, NARROW, pointwise=False)
        branches: list[Branch] = [Pointwise()]
        if self.strides == 1 and in_features == self.features:
            branches.append(Identity())
        return (self._merged(merged), *(Norm(branch, self.epsilon) for branch in branches))

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply to data (batch..., height, width, channels)."""
        y = self._convolve(x, train)
        if self.squeeze_excite:
            y = SqueezeExcite(
                self.squeeze_excite,
                square_window=self.square_window,
                name="squeeze_excite",
                **self.types,
            )(y)
        return y if self.activation is None else self.activation(y)
