"""Online re-parameterization: scaled linear branches that run as one convolution in training.

The branches have no norms, one norm follows their sum. So their kernels are merged in every
training step (`Online`), and only one convolution ever sees the data.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from collections.abc import Sequence as Sequence_
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from repjax.blocks.block import ConvBlock
from repjax.branches import Branch, Identity, KxK, Norm, Online, Pointwise, Sequence, orepa
from repjax.branches.orepa_set import scaled

KAIMING = nn.initializers.variance_scaling(2.0, "fan_in", "uniform")
NARROW = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")


def merged(block: ConvBlock, branch: Branch) -> Norm:
    """A branch that runs as one convolution in training, and the block's norm after it."""
    return Norm(Online(branch), block.epsilon)


def identity_init(
    key: jax.Array, shape: Sequence_[int], dtype: Any = jnp.float32, out_sharding: Any = None
) -> jax.Array:
    """One at its own channel: the identity between as many channels."""
    return jnp.broadcast_to(jnp.eye(shape[-2], shape[-1], dtype=dtype), shape)


class OREPABlock(ConvBlock):
    """Six scaled linear branches and one norm: `repjax.branches.orepa`, merged while trained.

    The means and cosines lie in the collection `fixed`.

    Args:
        internal: channels between 1x1 and KxK; None is as many as come in, twice as many for
            more than 4 groups.

    The other arguments are those of `ConvBlock`.

    Source: Hu et al., Online Convolutional Re-parameterization, CVPR 2022.

    Example:
        >>> x = jnp.ones((1, 8, 8, 4))
        >>> variables = jax.eval_shape(OREPABlock(4).init, jax.random.key(0), x)
        >>> list(variables["params"]["conv"])
        ['y=norm(orepa3x3)']
    """

    kernel_size: int = 3
    internal: int | None = None

    def branches(self, in_features: int) -> tuple[Branch, ...]:
        """The norm of the six."""
        internal = self.internal or in_features * (1 if self.groups <= 4 else 2)
        six = orepa(self.kernel_size, features=internal, kernel_init=KAIMING)
        return (merged(self, six),)


class OREPAPointwiseBlock(ConvBlock):
    """A scaled 1x1 convolution and a scaled chain of two, merged while trained, and one norm.

    One convolution of the chain starts as the identity, and so adds no features. The
    arguments are those of `ConvBlock`, with a kernel size of 1.

    Source: Hu et al., Online Convolutional Re-parameterization, CVPR 2022.

    Example:
        >>> x = jnp.ones((1, 8, 8, 2))
        >>> variables = jax.eval_shape(OREPAPointwiseBlock(4).init, jax.random.key(0), x)
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
        deep = Sequence(chain.first, chain.second, features=internal)
        return (merged(self, scaled([(one, 1.0), (deep, 0.5)])),)


class OREPALargeBlock(ConvBlock):
    """A chain of OREPA's 3x3 sums as one large kernel, merged while trained, and one norm.

    ``(kernel_size - 1) / 2`` links, without activations or borders between them.

    Args:
        branched: whether each link has OREPA's branches, or is one 3x3 convolution.

    The other arguments are those of `ConvBlock`; the kernel size of the chain is odd, 5 or
    more.

    Raises:
        ValueError: the kernel is even, or smaller than 5.

    Source: Hu et al., Online Convolutional Re-parameterization, CVPR 2022 (the linear deep
    stem). The authors' code correlates the kernels where a chain convolves them, which is
    the same block with mirrored kernels from the second link on.

    Example:
        >>> block = OREPALargeBlock(4, kernel_size=7, branched=False)
        >>> x = jnp.ones((1, 8, 8, 3))
        >>> list(jax.eval_shape(block.init, jax.random.key(0), x)["params"]["conv"])
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
                orepa(3, features=width, kernel_init=KAIMING) for width in widths
            ]
        else:
            links = [KxK(3)] * len(widths)
        return (merged(self, functools.reduce(Sequence, links)),)


class OREPARepVGGBlock(ConvBlock):
    """RepVGG's block with OREPA's branches in place of the 3x3: three norms, three kernels.

    ``activation(norm(merged(x)) + norm(conv1x1(x)) + norm(x))``; the identity is there only
    where shapes allow it.

    The arguments are those of `ConvBlock`; the activation is a ReLU.

    Source: Hu et al., Online Convolutional Re-parameterization, CVPR 2022.

    Example:
        >>> block = OREPARepVGGBlock(4)
        >>> variables = jax.eval_shape(block.init, jax.random.key(0), jnp.ones((1, 8, 8, 4)))
        >>> list(variables["params"]["conv"])[0].split("+")[-2:]
        ['norm(conv1x1)', 'norm(identity)']
    """

    kernel_size: int = 3
    activation: Callable[[jax.Array], jax.Array] | None = nn.relu

    def branches(self, in_features: int) -> tuple[Branch, ...]:
        """The three norms."""
        linear = orepa(self.kernel_size, pointwise=False, features=in_features, kernel_init=NARROW)
        branches: list[Branch] = [Pointwise()]
        branches += [Identity()] * self.preserving(in_features)
        return (merged(self, linear), *(Norm(branch, self.epsilon) for branch in branches))
