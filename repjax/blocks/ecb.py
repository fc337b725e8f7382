"""The edge-oriented block: 3x3 + 1x1-3x3 + 1x1-Sobel and -Laplacian, biases and no norm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from repjax.blocks.block import PYTORCH_KERNEL_INIT, Block, uniform
from repjax.branches import Branch, Fixed, Identity, KxK, Pointwise, Scale, Sequence

SMALL = nn.initializers.normal(1e-3)


class PReLU(nn.Module):
    """``max(x, 0) + negative_slope * min(x, 0)`` with a trained slope per channel.

    Args:
        param_dtype: type of the slope.

    Source: He et al., Delving Deep into Rectifiers, ICCV 2015.

    Example:
        >>> variables = PReLU().init(jax.random.key(0), -jnp.ones((1, 2)))
        >>> PReLU().apply(variables, -jnp.ones((1, 2)))
        Array([[-0.25, -0.25]], dtype=float32)
    """

    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply to data (batch..., channels)."""
        init = nn.initializers.constant(0.25)
        slope = self.param("negative_slope", init, x.shape[-1:], self.param_dtype)
        slope = slope.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))
        return jnp.where(x >= 0, x, slope * x)


class ECB(Block):
    """A 3x3 convolution with branches that look for edges, for super-resolution.

    ``activation(conv3x3(x) + conv3x3(conv1x1(x)) + edges(conv1x1(x)) ... [+ x])``: each edge
    branch is a fixed mask (Sobel x, Sobel y, Laplacian), of every channel by itself, times a
    trained scale, plus a bias. The masks lie in the collection `fixed`. The chains pad their
    input, so that the masks meet the bias of their 1x1 convolution at the border. The
    convolution lives in the node `conv`.

    Args:
        features: output channels.
        depth_multiplier: channels between 1x1 and 3x3, per output channel.
        identity: whether the input is added where it has as many channels.
        activation: "prelu" has a slope per channel; a function; None leaves it out.

    The other arguments are those of `Block`.

    Source: Zhang et al., Edge-oriented Convolution Block for Real-time Super Resolution on
    Mobile Devices, ACM MM 2021.

    Example:
        >>> variables = jax.eval_shape(ECB(4).init, jax.random.key(0), jnp.ones((1, 8, 8, 4)))
        >>> for branch in list(variables["params"]["conv"])[0].split("+"):
        ...     print(branch)
        y=conv3x3[bias]
        conv3x3[bias](conv1x1[bias])
        scale[bias](sobelx3x3(conv1x1[bias]))
        scale[bias](sobely3x3(conv1x1[bias]))
        scale[bias](laplacian3x3(conv1x1[bias]))
        >>> jax.tree.leaves(variables["fixed"])[0].shape
        (3, 3, 1, 4)
    """

    features: int
    depth_multiplier: float = 2.0
    identity: bool = False
    activation: Literal["prelu"] | Callable[[jax.Array], jax.Array] | None = "prelu"

    def branches(self, in_features: int) -> tuple[Branch, ...]:
        """What is added up, for that many input channels."""
        internal = int(self.features * self.depth_multiplier)
        pointwise = Pointwise(bias_init=uniform(in_features**-0.5))
        wide = KxK(3, bias_init=uniform((9 * in_features) ** -0.5))
        deep = KxK(3, bias_init=uniform((9 * internal) ** -0.5))
        edges = [
            Scale(Sequence(pointwise, Fixed(mask)), bias=True, scale_init=SMALL, bias_init=SMALL)
            for mask in ("sobelx", "sobely", "laplacian")
        ]
        keeps = self.identity and in_features == self.features
        added = [Identity()] if keeps else []
        return (wide, Sequence(pointwise, deep, features=internal), *edges, *added)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply to data (batch..., height, width, channels)."""
        y = self.rep_conv(
            "conv",
            self.features,
            branches=self.branches(x.shape[-1]),
            norm=None,
            kernel_init=PYTORCH_KERNEL_INIT,
        )(x, train)
        if self.activation == "prelu":
            return PReLU(param_dtype=self.param_dtype, name="prelu")(y)
        return y if self.activation is None else self.activation(y)
