"""The blocks of RepViT: a depthwise token mixer, a pointwise channel mixer, averaged heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

from repjax import algebra
from repjax.algebra.dtypes import fold_dtype
from repjax.blocks.block import Block, gelu, uniform
from repjax.blocks.squeeze_excite import rounded_width
from repjax.branches import Branch, Identity, KxK, Norm, Sum
from repjax.trees.register import register_block

NORM_LINEARS = "mean_of_norm_linears"
_EPSILON = 1e-5


class RepVGGDW(Block):
    """``norm(norm(conv3x3(x)) + conv1x1(x) + x)``, depthwise.

    The convolution lives in the node `conv`.

    Args:
        kernel_size: of the larger convolution.
        legacy: ``norm(conv3x3(x)) + norm(conv1x1(x)) + x``, as the first versions were.

    The other arguments are those of `Block`.

    Source: Wang et al., RepViT, CVPR 2024.

    Example:
        >>> variables = jax.eval_shape(RepVGGDW().init, jax.random.key(0), jnp.ones((1, 8, 8, 4)))
        >>> list(variables["params"]["conv"])
        ['y=norm(norm(conv3x3)+conv1x1[bias]+identity)']
    """

    kernel_size: int = 3
    legacy: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply to data (batch..., height, width, channels)."""
        small: Branch = Norm(KxK(1)) if self.legacy else KxK(1, bias=True)
        total: Branch = Sum((Norm(KxK(self.kernel_size)), small, Identity()))
        y: jax.Array = self.rep_conv(
            "conv",
            x.shape[-1],
            branches=(total if self.legacy else Norm(total),),
            norm=None,
            use_bias=False,
            groups=x.shape[-1],
            bias_init=uniform(1.0),
        )(x, train)
        return y


class RepViTBlock(Block):
    """A token mixer, then ``x + pointwise2(gelu(pointwise1(x)))``, a norm in each convolution.

    With strides of 1 the token mixer is `RepVGGDW`, then an optional gate. With strides it is
    a depthwise convolution, the gate, and a pointwise convolution to `features` channels.

    Args:
        features: output channels.
        kernel_size: of the depthwise convolutions.
        strides: of the token mixer.
        squeeze_excite: whether the gate is there, a quarter as wide, in multiples of 8.
        ratio: hidden channels of the channel mixer for each of its input channels.
        legacy: see `RepVGGDW`.

    The other arguments are those of `Block`.

    Raises:
        ValueError: the number of channels changes without strides.

    Source: Wang et al., RepViT, CVPR 2024.

    Example:
        >>> block = RepViTBlock(8, strides=2)
        >>> sorted(jax.eval_shape(block.init, jax.random.key(0), jnp.ones((1, 8, 8, 4)))["params"])
        ['channel_mixer1', 'channel_mixer2', 'depthwise', 'pointwise']
    """

    features: int
    kernel_size: int = 3
    strides: int = 1
    squeeze_excite: bool = False
    ratio: float = 2
    legacy: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply to data (batch..., height, width, channels)."""
        inputs = x.shape[-1]
        if self.strides == 1:
            if inputs != self.features:
                raise ValueError(
                    f"a block with strides of 1 keeps its {inputs} channels, found "
                    f"features={self.features}; give it strides of 2"
                )
            mixer = RepVGGDW(self.kernel_size, self.legacy, **self.common, name="token_mixer")
            x = mixer(x, train)
        else:
            x = self.rep_conv(
                "depthwise",
                inputs,
                branches=(KxK(self.kernel_size),),
                strides=self.strides,
                padding=(self.kernel_size - 1) // 2,
                groups=inputs,
            )(x, train)
        if self.squeeze_excite:
            width = rounded_width(inputs * 0.25, 8, round_limit=0)
            x = self.gate(width)(x)
        if self.strides != 1:
            x = self._pointwise("pointwise", self.features, x, train)
        y = self._pointwise("channel_mixer1", int(x.shape[-1] * self.ratio), x, train)
        zeros = nn.initializers.zeros_init()
        return x + self._pointwise(
            "channel_mixer2", x.shape[-1], gelu(y), train, norm_scale_init=zeros
        )

    def _pointwise(
        self, name: str, features: int, x: jax.Array, train: bool, **fields: Any
    ) -> jax.Array:
        return self.rep_conv(name, features, branches=(KxK(1),), **fields)(x, train)


class NormLinears(Block):
    """One or more heads, each a norm and a linear layer, averaged in inference.

    Deployed it is one linear layer, with `kernel` and `bias` in its own node: all heads live in
    the node `mean_of_norm_linears`, which `fuse_params` folds to their mean.

    Args:
        features: outputs.
        heads: how many; while training they give a tuple of outputs where there are several.

    The other arguments are those of `Block`.

    Source: Wang et al., RepViT, CVPR 2024; Graham et al., LeViT, ICCV 2021.

    Example:
        >>> import repjax
        >>> head = NormLinears(10, heads=2)
        >>> variables = jax.eval_shape(head.init, jax.random.key(0), jnp.ones((1, 4)))
        >>> deployed = jax.eval_shape(repjax.fuse_params, variables)
        >>> jax.tree.map(jnp.shape, deployed)
        {'params': {'bias': (10,), 'kernel': (4, 10)}}
    """

    features: int
    heads: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> Any:
        """Apply to data (batch..., channels)."""
        if self.deployed:
            return _linear(self, x, self.features)
        outputs = _Heads(self.features, self.heads, **self.common, name=NORM_LINEARS)(x, train)
        if train:
            return outputs if self.heads > 1 else outputs[0]
        return sum(outputs[1:], outputs[0]) / self.heads


class _Heads(Block):
    """The node that holds all heads."""

    features: int
    heads: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, ...]:
        names = [f"head{number}" for number in range(self.heads)]
        return tuple(
            _NormLinear(self.features, **self.common, name=name)(x, train) for name in names
        )


class _NormLinear(Block):
    """One head."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        norm = self.batch_norm("norm", train, _EPSILON)
        return _linear(self, norm(x), self.features)


def _linear(module: Block, x: jax.Array, features: int) -> jax.Array:
    """A linear layer with `kernel` and `bias` in the node of the module itself."""
    kernel_init = nn.initializers.truncated_normal(0.02)
    kernel = module.param("kernel", kernel_init, (x.shape[-1], features), module.param_dtype)
    bias = module.param("bias", nn.initializers.zeros_init(), (features,), module.param_dtype)
    x, kernel, bias = promote_dtype(x, kernel, bias, dtype=module.dtype)
    y: jax.Array = jnp.matmul(x, kernel, precision=module.precision) + bias
    return y


def _folded(head: Mapping[str, Any]) -> algebra.Conv:
    """Norm and linear layer of one head as one linear map."""
    linear = algebra.Conv(head["kernel"], head["bias"])
    return algebra.compose(_affine(head), linear)


def _affine(head: Mapping[str, Any]) -> algebra.Conv:
    vectors = (head["norm"][name] for name in ("mean", "var", "scale", "bias"))
    return algebra.batch_norm(*vectors, epsilon=_EPSILON, dims=0)


def _fold(subtree: Mapping[str, Any]) -> tuple[jax.Array, jax.Array | None]:
    """Kernel and bias of the mean of all heads."""
    convs = [_folded(head) for head in subtree.values()]
    mean = jax.tree.map(lambda leaf: leaf / len(convs), algebra.add(*convs))
    stored = next(iter(subtree.values()))["kernel"].dtype
    mean = mean.astype(jax.dtypes.canonicalize_dtype(stored))
    return mean.kernel, mean.bias


def _unfold(kernel: jax.Array, bias: jax.Array, subtree: Mapping[str, Any]) -> dict[str, Any]:
    """The linear layer of the first head takes what the others leave."""
    name, *others = subtree
    heads = [_folded(subtree[other]) for other in others]
    norm = _affine(subtree[name])
    wide = jnp.promote_types(fold_dtype(kernel.dtype, bias.dtype), norm.kernel.dtype)
    rest_kernel, rest_bias = kernel.astype(wide) * len(subtree), bias.astype(wide) * len(subtree)
    for head in heads:
        assert head.bias is not None
        rest_kernel, rest_bias = rest_kernel - head.kernel, rest_bias - head.bias
    scale = norm.kernel.reshape(-1, 1)
    if not isinstance(scale, jax.core.Tracer) and bool((scale == 0).any()):
        raise algebra.NotFusableError(f"the scale of the norm of {name} is zero on some channels")
    new = rest_kernel / scale
    assert norm.bias is not None
    with jax.default_matmul_precision("highest"):
        return {name: {"kernel": new, "bias": rest_bias - norm.bias @ new}}


register_block(NORM_LINEARS, _fold, _unfold)
