"""FastViT: a stem of MobileOne blocks, stages of mixers or attention, patch embeddings between."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax

from repjax.blocks.block import gelu
from repjax.blocks.fastvit import PatchEmbed, RepCPE
from repjax.blocks.fastvit_stages import AttentionBlock, RepMixerBlock
from repjax.blocks.mobileone import MobileOneBlock
from repjax.models.fastvit_sizes import CONFIGS, FastViTConfig
from repjax.models.initializers import small_normal
from repjax.models.network import Network
from repjax.models.registry import register_model
from repjax.models.sizes import drop_path_rates


class FastViT(Network):
    """FastViT: stem, stages, a last depthwise convolution with a gate, mean, linear head.

    Args:
        config: sizes; `CONFIGS` has the published ones.

    The other arguments are those of `Network`.

    Raises:
        ValueError: a token mixer that is neither "repmixer" nor "attention".

    Source: Vasu et al., FastViT: A Fast Hybrid Vision Transformer using Structural
    Reparameterization, ICCV 2023.

    Example:
        >>> import jax.numpy as jnp
        >>> config = FastViTConfig(depths=(1, 1, 1, 1), widths=(4, 4, 8, 8), ratios=(1, 1, 1, 1))
        >>> model = FastViT(config=config, num_classes=5)
        >>> shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((64, 64, 3)))
        >>> shapes["params"]["head"]["kernel"].shape
        (16, 5)
    """

    config: FastViTConfig = FastViTConfig()

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool = False, *, features: bool = False
    ) -> jax.Array | tuple[jax.Array, ...]:
        """Images (batch..., height, width, channels) to logits, or to the stages' outputs."""
        self.check(x)
        config = self.config
        width = config.widths[0]
        x = self._mobileone("stem0", width, strides=2, scale=config.stem_scale)(x, train)
        second = {"strides": 2, "groups": width, "scale": config.stem_scale}
        x = self._mobileone("stem1", width, **second)(x, train)
        x = self._mobileone("stem2", width, kernel_size=1)(x, train)
        outputs = []
        for stage, rates in enumerate(drop_path_rates(config.drop_path, config.depths)):
            x = self._enter(stage, x, train)
            for index, rate in enumerate(rates):
                x = self._block(stage, index, rate)(x, train)
            outputs.append(x)
        if features:
            return tuple(outputs)
        x = self._mobileone(
            "last", config.head_width, groups=x.shape[-1], squeeze_excite=config.squeeze_excite
        )(x, train)
        return self.linear_head(x.mean(axis=(-3, -2)), small_normal, nn.initializers.zeros_init())

    def _mobileone(self, name: str, width: int, **fields: Any) -> MobileOneBlock:
        return MobileOneBlock(
            width,
            **fields,
            activation=gelu,
            **self.common,
            name=name,
        )

    def _enter(self, stage: int, x: jax.Array, train: bool) -> jax.Array:
        """What stands before the blocks of a stage."""
        config = self.config
        if config.downsampled(stage):
            x = PatchEmbed(
                config.widths[stage],
                kernel_size=config.patch_kernel,
                strides=config.patch_strides,
                squeeze_excite=config.patch_squeeze_excite[stage],
                activation=config.patch_activation,
                **self.common,
                name=f"stage{stage + 1}_downsample",
            )(x, train)
        kernel = config.position_kernels[stage]
        if kernel is not None:
            x = RepCPE(kernel, **self.common, name=f"stage{stage + 1}_position")(x, train)
        return x

    def _block(self, stage: int, index: int, drop_path: float) -> RepMixerBlock | AttentionBlock:
        config = self.config
        fields = {
            "ratio": config.ratios[stage],
            "layer_scale": config.layer_scale,
            "drop_path": drop_path,
            "name": f"stage{stage + 1}_block{index}",
            **self.common,
        }
        if config.token_mixers[stage] == "repmixer":
            return RepMixerBlock(config.mixer_kernel, **fields)
        if config.token_mixers[stage] == "attention":
            return AttentionBlock(
                head_features=config.head_features, norm=config.attention_norm, **fields
            )
        raise ValueError(
            f"token mixer of stage {stage + 1}: found {config.token_mixers[stage]!r}, expected "
            "'repmixer' or 'attention'"
        )


for _name, _sizes in CONFIGS.items():
    register_model(_name, FastViT, _sizes)
