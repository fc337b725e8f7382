"""The evaluation in NumPy agrees with XLA, operation by operation."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from repjax.blocks import AveragePool, KxK, Norm, Pointwise, RepConv, Sequence
from repjax.branches import Fixed, Online, Scale, Sum
from tests.blocks.cases import random_variables
from tests.evaluate import RULES, Program

pytestmark = pytest.mark.usefixtures("x64")


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


X, K = numbers(2, 5, 4, 4), numbers(3, 2, 4, 3, seed=1)
WHOLE = np.arange(24).reshape(2, 3, 4) - 7


def conv(x: Any, k: Any, **options: Any) -> Any:
    options = {"window_strides": (1, 1), "padding": ((1, 2), (0, 1)), **options}
    return lax.conv_general_dilated(x, k, dimension_numbers=("NHWC", "HWIO", "NHWC"), **options)


KEY = jax.random.key(3)
WORDS = (lax.shift_left, lax.shift_right_logical, lax.bitwise_xor)
PROGRAMS: dict[str, Any] = {
    "arithmetic": lambda x: (-x + x * 2.0 - x / 3.0, abs(x), x**3, jnp.sign(x), x**2, x < 0.1),
    "functions": lambda x: [
        f(x)
        for f in (jnp.exp, jnp.tanh, jnp.sin, jnp.cos, jnp.log1p, jnp.expm1, jnp.sqrt, lax.rsqrt)
    ],
    "activations": lambda x: (
        [f(x) for f in (jax.nn.relu, jax.nn.gelu, jax.nn.silu, jax.nn.sigmoid, jax.nn.hard_swish)]
        + [jax.nn.gelu(x, approximate=False), jax.nn.softmax(x)]
    ),
    "comparisons": lambda x: (
        *(x == x[0], x != 0, x <= 0, x > 0, x >= 0, jnp.isfinite(x / x)),
        jnp.where((x > 0) & ~(x > 1) | (x < -1), x, 0.0),
    ),
    "extremes": lambda x: (jnp.maximum(x, 0.1), jnp.minimum(x, 0), jnp.clip(x, -1, 1)),
    "choice": lambda x: lax.select_n(jnp.asarray(np.arange(24).reshape(2, 3, 4) % 3), x, -x, x + 1),
    "rare": lambda x: (lax.square(x), lax.erf(x), lax.clamp(-0.5, x, 0.5)),
    "words": lambda x: [f(lax.bitcast_convert_type(x, "uint64"), np.uint64(7)) for f in WORDS],
    "powers": lambda x: (abs(x) ** 1.5, x**-2, jnp.log(abs(x)), jnp.floor(x)),
    "sums": lambda x: (
        x.sum(1),
        x.max((0, 2)),
        x.min(),
        x.cumsum(1),
        (x > 0).any(0),
        (x > 0).all(),
    ),
    "reversed sums": lambda x: lax.cumsum(x, 2, reverse=True),
    "moves": lambda x: (
        *(
            x.transpose(2, 0, 1),
            x.reshape(6, 4),
            lax.reshape(x, (3, 8), (1, 2, 0)),
            x[None].squeeze(0),
            x[::-1, :, 1:3:2],
        ),
        *jnp.split(x, [1, 3], 2),
        jnp.concatenate([x, x * 2], 1),
        jnp.broadcast_to(x[:, :1], (2, 2, 3, 4)[1:]),
    ),
    "padding": lambda x: lax.pad(x, 7.0, ((0, 1, 0), (2, -1, 3), (-1, -2, 1))),
    "cropped away": lambda x: lax.pad(x, 7.0, ((0, 0, 0), (-4, 2, 0), (0, 0, 0))),
    "parts": lambda x: (
        lax.dynamic_slice(x, (0, 1, 9), (2, 2, 2)),
        lax.dynamic_update_slice(x, x[:1, :2] * 2, (1, 3, -1)),
    ),
    "counting": lambda x: x + jnp.arange(3.0)[:, None] + lax.broadcasted_iota(int, x.shape, 2),
    "types": lambda x: (x.astype(jnp.float32), x.astype(int), x.astype(bool), x.astype("bfloat16")),
    "products": lambda x: (
        jnp.einsum("abc,adc->bd", x, x),
        jnp.einsum("abc,adc->abd", x, x),
        x @ x.swapaxes(1, 2),
        jnp.tensordot(x, x, ((0, 1, 2), (0, 1, 2))),
    ),
    "what has no rule": lambda x: (jnp.sort(x, 1), x[..., np.array([2, 0])], x.at[:, 1].set(0.5)),
    "calls": lambda x: jax.jit(jax.checkpoint(lambda x: jax.nn.relu(x) * 2))(x),
    "loops": lambda x: lax.scan(lambda c, row: (c + row, c.sum()), x[0], x),
    "whole numbers": lambda x: (WHOLE // 5 + 0 * x.astype(int), lax.div(jnp.asarray(WHOLE), 5)),
    "16 bits": lambda x: [f(x.astype("bfloat16")) for f in (jnp.tanh, lambda x: x.sum(-1))],
    "random numbers": lambda x: (
        jax.random.normal(KEY, x.shape),
        jax.random.uniform(jax.random.fold_in(KEY, 7), x.shape, minval=-1.0),
        jax.random.bernoulli(jax.random.split(KEY, 3)[1], 0.3, x.shape),
        jax.nn.initializers.lecun_normal()(KEY, (3, 4), "float32"),
        jax.random.bits(KEY, (5,), "uint8"),
        jax.random.uniform(jax.random.split(KEY, (2, 2))[1, 0], (3,), "bfloat16"),
        jax.random.key_data(jax.random.split(KEY)),
        jax.random.randint(KEY, (4,), 0, 9),
    ),
    "keys in rows": lambda x: jax.vmap(lambda key: jax.random.normal(key, (2,)))(
        jax.random.split(KEY)
    ),
    "another kind of key": lambda x: jax.random.uniform(jax.random.key(3, impl="rbg"), x.shape) + x,
}
CONVOLUTIONS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "cropped": {"padding": ((-1, 2), (3, -2))},
    "strides": {"window_strides": (2, 3)},
    "dilation": {"rhs_dilation": (2, 1)},
    "input dilation": {"lhs_dilation": (3, 2)},
    "no places": {"padding": ((0, 0), (0, 0)), "rhs_dilation": (3, 1)},
}


def agrees(function: Any, *arrays: Any, tolerance: float = 1e-14) -> None:
    """To a tolerance in float64, to rounding in other types."""
    wanted = jax.tree.leaves(jax.jit(function)(*arrays))
    found = jax.tree.leaves(Program(function, *arrays).in_numpy())
    for one, two in zip(found, wanted, strict=True):
        assert (one.shape, one.dtype) == (two.shape, two.dtype)
        one, two = np.asarray(one), np.asarray(two)
        allowed = {"bfloat16": 1e-2, "float32": 1e-6}.get(str(two.dtype), tolerance)
        if one.dtype == jnp.bfloat16:
            one, two = one.astype(float), two.astype(float)
        scale = np.nanmax(np.abs(two), initial=1.0)
        np.testing.assert_allclose(one, two, rtol=0, atol=allowed * scale)


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(name: str) -> None:
    agrees(PROGRAMS[name], numbers(2, 3, 4))


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_and_their_gradients(name: str) -> None:
    """The gradient for a kernel in groups is one in groups of examples."""
    options = CONVOLUTIONS[name]
    thin, pairs = numbers(3, 2, 1, 8, seed=2), numbers(3, 2, 2, 6, seed=3)

    def all_groups(x: Any, *kernels: Any) -> Any:
        groups = zip(kernels, (1, 4, 2), strict=True)
        return [conv(x, kernel, feature_group_count=n, **options) for kernel, n in groups]

    arrays = (X, K, thin, pairs)
    agrees(all_groups, *arrays)
    agrees(jax.grad(lambda *a: sum((y**3).sum() for y in all_groups(*a)), (0, 1, 2, 3)), *arrays)


def test_other_dimensions_and_layouts() -> None:
    x = numbers(2, 4, 9)
    names = ("NCH", "OIH", "NCH")
    agrees(
        lambda x: lax.conv_general_dilated(x, x[:, :2, :3], (2,), "SAME", dimension_numbers=names,
                                           feature_group_count=2), x
    )  # fmt: skip
    agrees(lambda x: lax.conv_transpose(x[..., None], K[..., :1, :], (2, 2), "SAME"), X[..., 0])


def test_pools() -> None:
    window, strides, padding = (1, 3, 2, 1), (1, 2, 1, 1), ((0, 0), (1, 2), (0, 1), (0, 0))
    for dilations in ({}, {"window_dilation": (1, 2, 1, 1)}, {"base_dilation": (1, 2, 2, 1)}):

        def pool(x: Any, options: Any = dilations) -> Any:
            return lax.reduce_window(x, 0.0, lax.add, window, strides, padding, **options)

        agrees(pool, X)


def test_training_a_block() -> None:
    """Operations with options that the programs above do not have."""
    chain = Sequence(Sum((Pointwise(), Fixed("eye", 1))), KxK(3), features=4)
    branches = (Norm(Online(Sum((Scale(chain), KxK(3))))), Norm(AveragePool(3)))
    block = RepConv(4, branches=branches, norm=None, groups=2, padding=((0, 2), (1, 1)))
    variables = random_variables(block, X)

    def loss(params: Any, x: Any) -> Any:
        tree = {**variables, "params": params}
        y, state = block.apply(tree, x, train=True, mutable=["batch_stats"])
        return (y**3).sum(), state

    agrees(jax.value_and_grad(loss, has_aux=True), variables["params"], X, tolerance=1e-12)


def test_every_operation_is_tried() -> None:
    found: set[str] = set()
    for function in PROGRAMS.values():
        found |= set(Program(function, numbers(2, 3, 4)).names)
    here = {"conv_general_dilated", "reduce_window_sum", "add_any"}
    assert set(RULES) - found - here <= {"copy", "copy_p", "squeeze"}
