"""Bad arguments: the NNX block says what the Linen block says."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import repjax.nnx
from repjax import blocks
from repjax.branches import Depthwise, KxK, Norm, Pointwise, Sequence

X = jax.ShapeDtypeStruct((1, 8, 8, 4), jnp.float32)
BAD: dict[str, dict[str, Any]] = {
    "features": {"features": 0},
    "features 4.0": {"features": 4.0},
    "one branch": {"branches": KxK(3)},
    "class": {"branches": (KxK,)},
    "no branch": {"branches": (3,)},
    "no sequence": {"branches": 3},
    "none": {"branches": ()},
    "norm": {"norm": "layer"},
    "two norms": {"branches": (Norm(KxK(3)),)},
    "identity": {"features": 6},
    "dims": {"dims": 0},
    "padding": {"padding": 1.5},
    "strides": {"strides": 0},
    "three strides": {"strides": [1, 2, 1]},
    "dilation": {"dilation": 0},
    "groups": {"groups": 3},
    "epsilon": {"epsilon": "tiny"},
    "depthwise": {"branches": (Depthwise(3, 0),)},
    "widths": {"branches": (Sequence(Pointwise(), KxK("3")),)},
    "crop": {"padding": -6},
    "unknown": {"bias": True},
}


def message(call: Any) -> tuple[type, str]:
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    return caught.type, str(caught.value).partition("\n--------")[0]


@pytest.mark.parametrize("name", BAD)
def test_as_linen_says_it(name: str) -> None:
    fields = {"features": 4, **BAD[name]}

    def linen() -> None:
        jax.eval_shape(blocks.RepConv(**fields).init, jax.random.key(0), X)

    def model() -> None:
        nnx.eval_shape(lambda: repjax.nnx.RepConv(4, **fields, rngs=nnx.Rngs(0))(jnp.ones(X.shape)))

    assert message(model) == message(linen)


def test_what_only_nnx_can_be_told_wrong() -> None:
    block = repjax.nnx.RepConv(4, 4, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"data of 4 channels expected; found \(1, 8, 8, 3\)"):
        block(jnp.ones((1, 8, 8, 3)))
    with pytest.raises(ValueError, match="in_features is a whole number"):
        repjax.nnx.RepConv(0, 4, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"norm of its own after its gate; use nnx.bridge.ToNNX"):
        repjax.nnx.QARepVGGBlock(4, 4, squeeze_excite=2, rngs=nnx.Rngs(0))
    with pytest.raises(TypeError, match=r"a RepConv; .*pass nnx.state\(module\)"):
        repjax.fuse_params(block)
