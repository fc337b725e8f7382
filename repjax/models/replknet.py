"""RepLKNet: large depthwise kernels, up to 31x31."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax

from repjax.blocks.repconv import RepConv
from repjax.blocks.replknet import RepLKBlock, RepLKFeedForward
from repjax.branches import Identity, KxK, Norm, Sequence
from repjax.models.initializers import uniform_bias, uniform_kernel
from repjax.models.network import IMAGENET_BICUBIC, Network, Preprocessing
from repjax.models.registry import register_model
from repjax.models.sizes import doubled_widths, drop_path_rates, require_stages


@dataclasses.dataclass(frozen=True)
class RepLKNetConfig:
    """Sizes of a RepLKNet.

    Args:
        widths: channels of each stage; the stem has those of the first.
        depths: pairs of blocks in each stage.
        kernel_sizes: of the large kernel of each stage.
        small_kernel_size: of the kernel beside it; None leaves it out.
        depthwise_ratio: channels of the large kernels for each channel of the stage.
        ffn_ratio: hidden channels for each channel of the stage.
        drop_path: rate of stochastic depth at the last pair; it grows linearly from 0.
        norm_features: whether the outputs of the stages are normalized before `features`
            returns them, as the XL network does on dense tasks.
        preprocessing: of the images that published weights were trained on.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...] = (2, 2, 18, 2)
    kernel_sizes: tuple[int, ...] = (31, 29, 27, 13)
    small_kernel_size: int | None = 5
    depthwise_ratio: float = 1.0
    ffn_ratio: float = 4.0
    drop_path: float = 0.3
    norm_features: bool = False
    preprocessing: Preprocessing = IMAGENET_BICUBIC

    def __post_init__(self) -> None:
        require_stages(self, "kernel_sizes")


class RepLKNet(Network):
    """A stem of four convolutions, then stages of large kernels and feed-forward blocks.

    Deployed, no batch norm is left: those in front of pointwise convolutions fold into them,
    and the last one, which a mean over the map follows, folds into the head. The published
    code merges only the kernels of equal inputs and keeps the other norms.

    Args:
        config: sizes; `CONFIGS` has the published ones.

    The other arguments are those of `Network`.

    Source: Ding et al., Scaling Up Your Kernels to 31x31 (RepLKNet), CVPR 2022.

    Example:
        >>> from repjax import models
        >>> model = models.create("replknet_31b", widths=(8, 8, 8, 8), depths=(1, 1, 1, 1))
        >>> x = jax.ShapeDtypeStruct((1, 64, 64, 3), "float32")
        >>> variables = jax.eval_shape(model.init, jax.random.key(0), x)
        >>> jax.eval_shape(model.apply, variables, x).shape
        (1, 1000)
    """

    config: RepLKNetConfig = RepLKNetConfig(doubled_widths(128))

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool = False, *, features: bool = False
    ) -> jax.Array | tuple[jax.Array, ...]:
        """Images (batch..., height, width, channels) to logits, or to the stages' outputs."""
        self.check(x)
        config = self.config
        width = config.widths[0]
        x = self._conv("stem0", x, train, width, 3, strides=2)
        x = self._conv("stem1", x, train, width, 3, groups=width)
        x = self._conv("stem2", x, train, width, 1)
        x = self._conv("stem3", x, train, width, 3, strides=2, groups=width)
        outputs = []
        for number, width in enumerate(config.widths):
            if number:
                x = self._conv(f"transition{number}_0", x, train, width, 1)
                x = self._conv(f"transition{number}_1", x, train, width, 3, strides=2, groups=width)
            x = self._stage(number, x, train)
            outputs.append(self._normed(f"stage{number + 1}_norm", x, train))
        return tuple(outputs) if features else self._head(x, train)

    def _conv(
        self, name: str, x: jax.Array, train: bool, features: int, size: int, **fields: int
    ) -> jax.Array:
        """A convolution with a norm and a ReLU."""
        return nn.relu(self.normed_conv(name, features, size, **fields)(x, train))

    def _stage(self, number: int, x: jax.Array, train: bool) -> jax.Array:
        """Pairs of a large kernel block and a feed-forward block."""
        config = self.config
        for index, rate in enumerate(drop_path_rates(config.drop_path, config.depths)[number]):
            x = RepLKBlock(
                int(config.widths[number] * config.depthwise_ratio),
                kernel_size=config.kernel_sizes[number],
                small_kernel_size=config.small_kernel_size,
                drop_path=rate,
                name=f"stage{number + 1}_block{2 * index}",
                **self.common,
            )(x, train)
            x = RepLKFeedForward(
                config.ffn_ratio,
                drop_path=rate,
                name=f"stage{number + 1}_block{2 * index + 1}",
                **self.common,
            )(x, train)
        return x

    def _normed(self, name: str, x: jax.Array, train: bool) -> jax.Array:
        """A norm that nothing linear follows, so that it stays."""
        if not self.config.norm_features:
            return x
        y: jax.Array = self.batch_norm(name, train)(x)
        return y

    def _head(self, x: jax.Array, train: bool) -> jax.Array:
        """Norm, linear layer and mean: the mean of a linear map is the map of the mean."""
        width = x.shape[-1]
        head = RepConv(
            self.num_classes,
            branches=(Sequence(Norm(Identity()), KxK(1, bias=True), features=width),),
            norm=None,
            kernel_init=uniform_kernel,
            bias_init=uniform_bias(width),
            name="head",
            **self.common,
        )
        if self.deployed:
            return head(x.mean(axis=(-3, -2), keepdims=True))[..., 0, 0, :]
        return head(x, train).mean(axis=(-3, -2))


CONFIGS = {
    "replknet_31b": RepLKNetConfig(doubled_widths(128)),
    "replknet_31l": RepLKNetConfig(
        doubled_widths(192),
        preprocessing=Preprocessing((384, 384), crop=1.0, interpolation="bicubic"),
    ),
    "replknet_xl": RepLKNetConfig(
        doubled_widths(256),
        kernel_sizes=(27, 27, 27, 13),
        small_kernel_size=None,
        depthwise_ratio=1.5,
        preprocessing=Preprocessing((320, 320), (0.5,) * 3, (0.5,) * 3, interpolation="bicubic"),
    ),
}

for _name, _config in CONFIGS.items():
    register_model(_name, RepLKNet, _config)
