"""What every network is: a Linen module with a configuration and a deploy twin."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
from jax.nn.initializers import Initializer

from repjax.blocks.block import Block
from repjax.blocks.fields import require_whole
from repjax.blocks.repconv import RepConv
from repjax.branches import KxK
from repjax.models.initializers import uniform_bias, uniform_kernel

NO_CLASSES = "; outputs without a head: model.apply(variables, images, method='features')"

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How the images were prepared that published weights were trained on.

    Args:
        input_size: height and width after the crop, in pixels.
        mean: per channel, of values from 0 to 1.
        std: per channel.
        crop: fraction of the resized image that the center crop keeps.
        interpolation: of the resize.
    """

    input_size: tuple[int, int] = (224, 224)
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    crop: float = 0.875
    interpolation: str = "bilinear"


IMAGENET = Preprocessing()
IMAGENET_BICUBIC = Preprocessing(interpolation="bicubic")


class Network(Block):
    """Fields and methods that all networks share; a subclass adds its `config` and `__call__`.

    ``model.apply(variables, images)`` is inference on (batch..., height, width, channels),
    without batch axes too; ``train=True, mutable=["batch_stats"]`` trains.
    ``model.apply(variables, images, method="features")`` returns the outputs of the stages.

    Args:
        num_classes: outputs of the head.
        in_channels: channels of the images.

    The other arguments are those of `Block`.
    """

    num_classes: int = 1000
    in_channels: int = 3

    def features(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, ...]:
        """The outputs of all stages, the highest resolution first, as a backbone gives them."""
        outputs: tuple[jax.Array, ...] = self(x, train, features=True)
        return outputs

    def normed_conv(
        self, name: str, width: int, size: int, *, strides: int = 1, groups: int = 1
    ) -> RepConv:
        """A convolution with a norm, in the node of that name; size and strides of both axes."""
        return self.rep_conv(
            name,
            width,
            branches=(KxK(size),),
            strides=strides,
            padding=size // 2,
            groups=groups,
        )

    def linear_head(
        self,
        x: jax.Array,
        kernel_init: Initializer = uniform_kernel,
        bias_init: Initializer | None = None,
    ) -> jax.Array:
        """A linear map of (batch..., channels) to the classes, in the node `head`.

        It is initialized as PyTorch does it, unless other initializers are given.
        """
        logits: jax.Array = nn.Dense(
            self.num_classes,
            **self.types,
            kernel_init=kernel_init,
            bias_init=bias_init or uniform_bias(x.shape[-1]),
            name="head",
        )(x)
        return logits

    def hidden_head(
        self, x: jax.Array, width: int, dropout: float, train: bool, *, use_bias: bool = True
    ) -> jax.Array:
        """A linear map to `width` channels, in the node `hidden`, ReLU, dropout, `linear_head`."""
        hidden = nn.Dense(
            width,
            **self.types,
            use_bias=use_bias,
            kernel_init=uniform_kernel,
            bias_init=uniform_bias(x.shape[-1]),
            name="hidden",
        )
        x = nn.Dropout(dropout, deterministic=not train)(nn.relu(hidden(x)))
        return self.linear_head(x)

    def check(self, x: jax.Array) -> None:
        """Refuse images of another number of channels, and a network without classes.

        Raises:
            ValueError: `x` is not (batch..., height, width, in_channels), or `num_classes` or
                `in_channels` is no whole number, at least 1.
        """
        require_whole("num_classes", self.num_classes, hint=NO_CLASSES)
        require_whole("in_channels", self.in_channels)
        if x.ndim < 3 or x.shape[-1] != self.in_channels:
            raise ValueError(
                f"{type(self).__name__} takes (batch..., height, width, {self.in_channels}), "
                f"found {x.shape}; in_channels= makes it take others"
            )
