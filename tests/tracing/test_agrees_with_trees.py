"""The two doors give the same convolution for a block: kernel for kernel, bias for bias."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import repjax
from repjax.blocks import (
    AveragePool,
    Identity,
    KxK,
    Pointwise,
    RepConv,
    RepVGGBlock,
    ResidualConv,
    Sequence,
)
from tests.tracing.checks import image, random_like

pytestmark = pytest.mark.usefixtures("x64")

BLOCKS = {
    "RepConv": RepConv(4),
    "one norm": RepConv(4, norm="sum"),
    "no norm": RepConv(4, norm=None),
    "strided": RepConv(6, (KxK(3), Pointwise()), strides=2),
    "grouped": RepConv(4, groups=2),
    "depthwise, dilated branch": RepConv(4, (KxK(5), KxK(3, dilation=2), Identity()), groups=4),
    "copies": RepConv(4, (KxK(3),) * 3),
    "1-D": RepConv(4, dims=1),
    "RepVGGBlock": RepVGGBlock(4),
    "ResidualConv": ResidualConv(4),
    "diverse": RepConv(
        4, (KxK(3), Sequence(Pointwise(), KxK(3)), Sequence(Pointwise(), AveragePool(3)))
    ),
}


def convolutions(tree):
    """Pairs of kernel and bias anywhere in a tree."""
    if "kernel" in tree:
        return [(tree["kernel"], tree.get("bias"))]
    return [pair for child in tree.values() for pair in convolutions(child)]


@pytest.mark.parametrize("name", BLOCKS)
def test_both_doors_agree(name):
    block = BLOCKS[name]
    x = image(1, *(7,) * getattr(block, "dims", 2), 4)
    variables = random_like(jax.eval_shape(block.init, jax.random.key(0), x))
    by_tree = convolutions(repjax.fuse_params(variables)["params"])
    by_trace = convolutions(repjax.fuse(block.apply, variables, x).params)
    assert len(by_tree) == len(by_trace) == 1
    for one, two in zip(by_tree[0], by_trace[0], strict=True):
        assert one.shape == two.shape
        assert one.dtype == two.dtype
        np.testing.assert_allclose(one, two, rtol=1e-10, atol=1e-12)
