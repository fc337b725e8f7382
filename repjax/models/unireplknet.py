"""UniRepLKNet: a few large kernels with dilated branches, small ones for depth."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax

from repjax.blocks.unireplknet import KERNEL_INIT, UniRepLKNetBlock
from repjax.models.network import IMAGENET_BICUBIC, Network, Preprocessing
from repjax.models.registry import register_model
from repjax.models.sizes import doubled_widths, drop_path_rates, require_stages


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
        norm_features: whether the outputs of the stages are normalized over their channels
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
    preprocessing: Preprocessing = IMAGENET_BICUBIC

    def __post_init__(self) -> None:
        require_stages(self, "kernel_sizes")


class UniRepLKNet(Network):
    """Stages of `UniRepLKNetBlock`, strided convolutions with layer norm between them.

    Deployed, no batch norm is left; layer norms, squeeze-excite and response norms stay.

    Args:
        config: sizes; `CONFIGS` has the published ones.

    The other arguments are those of `Network`.

    Source: Ding et al., UniRepLKNet, CVPR 2024.

    Example:
        >>> import functools
        >>> from repjax import models
        >>> model = models.create("unireplknet_a", widths=(8, 8, 8, 8), depths=(1, 1, 1, 1))
        >>> x = jax.ShapeDtypeStruct((1, 64, 64, 3), "float32")
        >>> variables = jax.eval_shape(model.init, jax.random.key(0), x)
        >>> features = functools.partial(model.apply, method="features")
        >>> [y.shape for y in jax.eval_shape(features, variables, x)]
        [(1, 16, 16, 8), (1, 8, 8, 8), (1, 4, 4, 8), (1, 2, 2, 8)]
    """

    config: UniRepLKNetConfig = UniRepLKNetConfig(doubled_widths(96))

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
        init = nn.initializers.normal(0.02 * config.head_init_scale)
        return self.linear_head(x, init, nn.initializers.zeros_init())

    def _downsample(self, name: str, x: jax.Array, width: int) -> jax.Array:
        """A 3x3 convolution with strides of 2 and a layer norm."""
        x = nn.Conv(
            width,
            (3, 3),
            strides=2,
            padding=1,
            kernel_init=KERNEL_INIT,
            name=f"{name}_conv",
            **self.types,
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
        for index, rate in enumerate(drop_path_rates(config.drop_path, config.depths)[number]):
            x = UniRepLKNetBlock(
                sizes[index % len(sizes)],
                layer_scale=config.layer_scale,
                drop_path=rate,
                name=f"stage{number + 1}_block{index}",
                **self.common,
            )(x, train)
        return x


_A = UniRepLKNetConfig(doubled_widths(40), (2, 2, 6, 2), ((3,), (13,), (13,), (13,)))
_S = UniRepLKNetConfig(doubled_widths(96), (3, 3, 27, 3), ((3,), (13,), (13, 3, 3), (13,)))
_AT_384 = dataclasses.replace(
    _S, preprocessing=Preprocessing((384, 384), crop=1.0, interpolation="bicubic")
)


def _widened(config: UniRepLKNetConfig, width: int, **changes: Any) -> UniRepLKNetConfig:
    """The same plan with another width; each stage doubles it."""
    return dataclasses.replace(config, widths=doubled_widths(width), **changes)


CONFIGS = {
    "unireplknet_a": _A,
    "unireplknet_f": _widened(_A, 48),
    "unireplknet_p": _widened(_A, 64),
    "unireplknet_n": _widened(_A, 80, depths=(2, 2, 8, 2)),
    "unireplknet_t": _widened(
        _A, 80, depths=(3, 3, 18, 3), kernel_sizes=((3,), (13,), (13, 3), (13,))
    ),
    "unireplknet_s": _S,
    "unireplknet_b": _widened(_AT_384, 128),
    "unireplknet_l": _widened(_AT_384, 192),
    "unireplknet_xl": _widened(_AT_384, 256),
}

for _name, _config in CONFIGS.items():
    register_model(_name, UniRepLKNet, _config)
