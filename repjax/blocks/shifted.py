"""A trained bias per channel in front of a pointwise convolution, which takes it over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

from repjax import algebra
from repjax.algebra import Conv, NotFusableError
from repjax.algebra.dtypes import fold_dtype
from repjax.blocks.repconv import RepConv
from repjax.trees import fuse_params, register_block, unfuse_params

NODE = "shift_then_conv"


class ShiftedConv(RepConv):
    """``conv(x + bias)``, where `conv` is a `RepConv` of one tap.

    Its arguments are those of `RepConv`; the bias is there in the node `shift_then_conv`,
    beside the convolution, and begins at zero. Deployed, it is the single convolution.

    Source: the bias of a response norm, Ding et al., UniRepLKNet, CVPR 2024.

    Example:
        >>> import jax.numpy as jnp, repjax
        >>> from repjax.branches import KxK
        >>> layer = ShiftedConv(4, branches=(KxK(1),))
        >>> variables = jax.eval_shape(layer.init, jax.random.key(0), jnp.ones((1, 8, 8, 2)))
        >>> sorted(variables["params"]["shift_then_conv"])
        ['bias', 'conv']
        >>> sorted(jax.eval_shape(repjax.fuse_params, variables)["params"])
        ['bias', 'kernel']
    """

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply to data (batch..., spatial..., channels)."""
        if self.deployed:
            return super().__call__(x, train)
        fields = {name: getattr(self, name) for name in RepConv.__dataclass_fields__}
        return _Shifted(fields | {"name": "conv", "parent": None}, name=NODE)(x, train)


class _Shifted(nn.Module):
    """The node of the bias and the convolution."""

    fields: Mapping[str, Any]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        conv = RepConv(**{**self.fields, "parent": self})
        zeros = nn.initializers.zeros_init()
        bias = self.param("bias", zeros, (x.shape[-1],), conv.param_dtype)
        x, bias = promote_dtype(x, bias, dtype=conv.dtype)
        return conv(x + bias, train)


def _fold(subtree: Mapping[str, Any]) -> tuple[jax.Array, jax.Array | None]:
    conv = Conv(**fuse_params(subtree["conv"]))
    if set(conv.kernel_size) != {1}:
        raise NotFusableError(
            f"a bias in front of a {conv.kernel_size} convolution: at the border there is none; "
            "expected one tap"
        )
    shift = algebra.channel_affine(shift=subtree["bias"], dims=conv.dims)
    folded = algebra.compose(shift, conv).astype(conv.kernel.dtype)
    return folded.kernel, folded.bias


def _unfold(
    kernel: jax.Array, bias: jax.Array | None, subtree: Mapping[str, Any]
) -> dict[str, Any]:
    """The convolution takes the bias less what the shift makes of it."""
    shift = jnp.asarray(subtree["bias"])
    wide = fold_dtype(kernel.dtype, shift.dtype)
    taps = kernel.reshape(-1, kernel.shape[-1]).astype(wide)
    with jax.default_matmul_precision("highest"):
        rest = (0 if bias is None else bias.astype(wide)) - shift.astype(wide) @ taps
    return {"conv": unfuse_params({"kernel": kernel, "bias": rest}, subtree["conv"])}


register_block(NODE, _fold, _unfold)
