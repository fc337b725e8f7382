"""UniRepLKNet: a few large kernels with dilated branches, small ones for depth."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from repjax.blocks.unireplknet import KERNEL_INIT, UniRepLKNetBlock
from repjax.models.network import Network, Preprocessing
from repjax.models.registry import register_model


@dataclasses.dataclass(frozen=True)
class UniRepLKNetConfig:
    """Sizes of a UniRepLKNet.

    Args:
        widths: channels of each stage.
        depths: blocks in each stage.
        kernel_sizes: per stage, the kernel sizes of its blocks, repeated or cut to its depth.
        layer_scale: initial value of the layer scales; None or 0 leaves them out.
        drop_path: rate of stochastic depth at the last block; it grows linearly from 0.
        head_init_scale: factor on the initial kernel of the head.
        norm_features: whether the outputs of the stages are normalised over their channels
            before `features` returns them, as the published backbone does.
        preprocessing: of the images that published weights were trained on.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...] = (3, 3, 27, 3)
    kernel_sizes: tuple[tuple[int, ...], ...] = ((3,), (13,), (13, 3, 3), (13,))
    layer_scale: float | None = 1e-6
    drop_path: float = 0.0
    head_init_scale: float = 1.0
    norm_features: bool = False
    preprocessing: Preprocessing = Preprocessing(interpolation="bicubic")


class UniRepLKNet(Network):
    """Stages of `UniRepLKNetBlock`, strided convolutions with layer norm between them.

    Deployed, no batch norm is left; layer norms, squeeze-excite and response norms stay.

    Args:
        config: sizes.

    Source: Ding et al., UniRepLKNet, CVPR 2024.

    Example:
        >>> import functools
        >>> from repjax import models
        >>> model = models.create("unireplknet_a", widths=(8, 8, 8, 8), depths=(1, 1, 1, 1))
        >>> x = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
        >>> variables = jax.eval_shape(model.init, jax.random.key(0), x)
        >>> features = functools.partial(model.apply, method="features")
        >>> [y.shape for y in jax.eval_shape(features, variables, x)]
        [(1, 16, 16, 8), (1, 8, 8, 8), (1, 4, 4, 8), (1, 2, 2, 8)]
    """

    config: UniRepLKNetConfig = UniRepLKNetConfig((96, 192, 384, 768))

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool = False, *, features: bool = False
    ) -> jax.Array | tuple[jax.Array, ...]:
        """Images (batch..., height, width, channels) to logits, or to the stages' outputs."""
        self.check(x)
        config = self.config
        x = self._downsample("stem0", x, config.widths[0] // 2)
        x = self._downsample("stem1", nn.gelu(x, approximate=False), config.widths[0])
        outputs = []
        for number, width in enumerate(config.widths):
            if number:
                x = self._downsample(f"downsample{number}", x, width)
            x = self._stage(number, x, train)
            outputs.append(self._layer_norm(f"norm{number}", x) if config.norm_features else x)
        if features:
            return tuple(outputs)
        x = self._layer_norm("norm", x.mean(axis=(-3, -2)))
        return nn.Dense(
            self.num_classes,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            precision=self.precision,
            kernel_init=nn.initializers.normal(0.02 * config.head_init_scale),
            name="head",
        )(x)

    def _downsample(self, name: str, x: jax.Array, width: int) -> jax.Array:
        """A 3x3 convolution with strides of 2 and a layer norm."""
        x = nn.Conv(
            width,
            (3, 3),
            strides=2,
            padding=1,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            precision=self.precision,
            kernel_init=KERNEL_INIT,
            name=f"{name}_conv",
        )(x)
        return self._layer_norm(f"{name}_norm", x)

    def _layer_norm(self, name: str, x: jax.Array) -> jax.Array:
        y: jax.Array = nn.LayerNorm(
            epsilon=1e-6,
            use_fast_variance=False,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name=name,
        )(x)
        return y

    def _stage(self, number: int, x: jax.Array, train: bool) -> jax.Array:
        config = self.config
        sizes = config.kernel_sizes[number]
        last = max(sum(config.depths) - 1, 1)
        for index in range(config.depths[number]):
            x = UniRepLKNetBlock(
                sizes[index % len(sizes)],
                layer_scale=config.layer_scale,
                drop_path=config.drop_path * (sum(config.depths[:number]) + index) / last,
                name=f"stage{number + 1}_block{index}",
                **self.common,
            )(x, train)
        return x


_SMALL = {"depths": (2, 2, 6, 2), "kernel_sizes": ((3,), (13,), (13,), (13,))}
_TINY = {"depths": (3, 3, 18, 3), "kernel_sizes": ((3,), (13,), (13, 3), (13,))}
_AT_384 = Preprocessing((384, 384), crop=1.0, interpolation="bicubic")

CONFIGS = {
    "unireplknet_a": UniRepLKNetConfig((40, 80, 160, 320), **_SMALL),
    "unireplknet_f": UniRepLKNetConfig((48, 96, 192, 384), **_SMALL),
    "unireplknet_p": UniRepLKNetConfig((64, 128, 256, 512), **_SMALL),
    "unireplknet_n": UniRepLKNetConfig((80, 160, 320, 640), **_SMALL | {"depths": (2, 2, 8, 2)}),
    "unireplknet_t": UniRepLKNetConfig((80, 160, 320, 640), **_TINY),
    "unireplknet_s": UniRepLKNetConfig((96, 192, 384, 768)),
    "unireplknet_b": UniRepLKNetConfig((128, 256, 512, 1024), preprocessing=_AT_384),
    "unireplknet_l": UniRepLKNetConfig((192, 384, 768, 1536), preprocessing=_AT_384),
    "unireplknet_xl": UniRepLKNetConfig((256, 512, 1024, 2048), preprocessing=_AT_384),
}

for _name, _config in CONFIGS.items():
    register_model(_name, UniRepLKNet, _config)
