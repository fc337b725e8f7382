"""What `RepConv` refuses, and says; what it leaves out by itself."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from repjax.blocks import (
    AveragePool,
    Depthwise,
    Identity,
    KxK,
    Norm,
    RepConv,
    Scale,
    Sequence,
    Shift,
    Sum,
)


def initialized(block: RepConv, channels: int = 4, dims: int = 2) -> Any:
    x = jax.ShapeDtypeStruct((1, *(9,) * dims, channels), jnp.float32)
    return jax.eval_shape(block.init, jax.random.key(0), x)


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (RepConv(4, strides=2), r"identity branch needs strides of 1, found \(2, 2\)"),
        (RepConv(6), r"norm\(identity\) makes 4 channels of 4, but the block has features=6"),
        (RepConv(6, (KxK(3), AveragePool(3))), "average3x3.* makes 4 .* features=6"),
        (RepConv(4, (Depthwise(3, 2),)), "depthwise3x3.* makes 8 channels of 4, .* features=4"),
        (RepConv(2, (KxK(3), Sequence(KxK(1), Depthwise(3, 3)))), "makes 6 channels of 4"),
        (
            RepConv(8, (Sequence(Sum((KxK(1), Identity())), KxK(3)),)),
            "identity makes 4 .*=8 ",
        ),
        (RepConv(4, (Identity(),)), "needs a branch with a kernel; found norm.identity"),
        (RepConv(4, (AveragePool(3), Scale(Identity())), norm=None), "branch with a kernel"),
        (RepConv(4, ()), "at least one branch"),
        (RepConv(4, (KxK(2, tap=2),)), r"tap \(2, 2\) lies outside a kernel of size \(2, 2\)"),
        (RepConv(4, (KxK(3), AveragePool(2, tap=-1))), r"tap \(-1, -1\) lies outside"),
        (RepConv(4, (KxK(0),)), "at least 1 tap on every axis"),
        (RepConv(4, (KxK(3, dilation=0),)), r"dilation \(0, 0\), expected at least 1"),
        (RepConv(4, (KxK((3, 3, 3)),)), "kernel_size has 3 entries for 2 spatial axes"),
        (RepConv(4, (Norm(KxK(3)),)), r"norm directly after a norm.*norm='branch' adds one"),
        (RepConv(4, (Scale(Scale(KxK(3))),)), "scale directly after a scale"),
        (RepConv(4, (Shift(KxK(3, bias=True)),)), "bias directly after a bias"),
        (RepConv(4, (Sequence(KxK(3), Norm(KxK(3))),)), "around the Sequence itself"),
        (RepConv(4, (Sequence(KxK(3), Identity()),)), "second of a Sequence has a kernel"),
        (RepConv(4, epsilon=-1e-5), "epsilon -1e-05: expected a finite number"),
        (RepConv(4, epsilon=float("nan")), "epsilon nan: expected a finite number"),
        (RepConv(4, padding="SAME"), "depends on the input size"),
        (RepConv(4, padding=(1, 1, 1)), "padding has 3 entries for 2 spatial axes"),
        (RepConv(4, norm="both"), "norm is 'branch', 'sum' or None; found 'both'"),  # type: ignore[arg-type]
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refused_with_the_reason(block: RepConv, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        initialized(block)


def test_a_depthwise_branch_of_one_channel_is_not_broadcast() -> None:
    block = RepConv(4, (KxK(3), Depthwise(3)))
    with pytest.raises(ValueError, match=r"norm\(depthwise3x3\) makes 1 channels of 1, .*=4"):
        initialized(block, channels=1)
    fitting = RepConv(8, (KxK(3), Depthwise(3, multiplier=2)))
    assert initialized(fitting)["params"]


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("features", [4, 6])
def test_optional_identity_is_there_where_shapes_allow(strides: int, features: int) -> None:
    block = RepConv(features, (KxK(3), Identity(optional=True)), strides=strides, norm=None)
    [name] = initialized(block)["params"]
    fits = strides == 1 and features == 4
    assert name == ("y=conv3x3[bias]+identity" if fits else "y=conv3x3[bias]")


def test_bias_is_where_there_is_no_norm_unless_said() -> None:
    names = {
        (norm, use_bias): next(
            iter(initialized(RepConv(4, (KxK(3),), norm, use_bias=use_bias))["params"])
        )
        for norm in ("branch", "sum", None)
        for use_bias in (None, True, False)
    }
    assert names == {
        ("branch", None): "y=norm(conv3x3)",
        ("branch", True): "y=norm(conv3x3[bias])",
        ("branch", False): "y=norm(conv3x3)",
        ("sum", None): "y=norm(conv3x3)",
        ("sum", True): "y=norm(conv3x3[bias])",
        ("sum", False): "y=norm(conv3x3)",
        (None, None): "y=conv3x3[bias]",
        (None, True): "y=conv3x3[bias]",
        (None, False): "y=conv3x3",
    }
    silent = RepConv(4, (KxK(3),), norm=None, use_bias=False)
    assert set(initialized(silent.deploy())["params"]) == {"kernel"}


def test_the_epsilon_of_the_block_stands_in_the_name() -> None:
    for epsilon, text in [(1e-3, "1e-3"), (0, "0e0"), (jnp.float32(0.5), "5e-1"), (15e-4, "15e-4")]:
        [name] = initialized(RepConv(4, (KxK(3),), epsilon=epsilon))["params"]
        assert name == f"y=norm[epsilon={text}](conv3x3)"


def test_data_of_too_few_axes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"2 spatial axes"):
        initialized(RepConv(4, (KxK(3),)), dims=0)
