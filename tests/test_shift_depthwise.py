"""Depthwise convolutions as shifted products: the same values and derivatives, a small program."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repjax import count_operations, shift_depthwise
from repjax.counting import trace
from repjax.jaxprs import equations

pytestmark = pytest.mark.usefixtures("x64")

LAYOUTS = [("N{}C", "{}IO", "N{}C"), ("NC{}", "OI{}", "NC{}"), ("N{}C", "{}IO", "NC{}")]


def depthwise(x, kernel, layout, groups, **options):
    space = "DHW"[-(x.ndim - 2) :]
    return jax.lax.conv_general_dilated(
        *(x, kernel, options.pop("strides", (1,) * len(space)), options.pop("padding", "SAME")),
        dimension_numbers=tuple(word.format(space) for word in layout),
        feature_group_count=groups,
        **options,
    )


def drawn(seed):
    """A random depthwise convolution of 1 to 3 spatial axes, its input and its kernel."""
    rng = np.random.default_rng(seed)
    dims, channels, multiplier = rng.integers(1, 4), int(rng.integers(2, 4)), rng.integers(1, 3)

    def some(low, high):
        return tuple(map(int, rng.integers(low, high, dims)))

    layout, taps, size = LAYOUTS[seed % 3], some(1, 5), some(9, 13)
    options = {
        "strides": some(1, 3),
        "padding": [(int(rng.integers(-1, 4)), int(rng.integers(-1, 4))) for _ in range(dims)],
        "rhs_dilation": some(1, 3),
        "lhs_dilation": some(1, 3) if seed % 2 else (1,) * dims,
    }
    features = int(channels * multiplier)
    shape = (2, *size, channels) if layout[0].endswith("C") else (2, channels, *size)
    kernel = (*taps, 1, features) if layout[1].endswith("O") else (features, 1, *taps)
    x, kernel = (jnp.asarray(rng.normal(size=shape)) for shape in (shape, kernel))
    return functools.partial(depthwise, layout=layout, groups=channels, **options), x, kernel


def close(one, two, tolerance=1e-12):
    assert one.shape == two.shape
    assert one.dtype == two.dtype
    assert np.abs(one - two).max(initial=0) <= tolerance * max(np.abs(one).max(initial=0), 1e-30)


@pytest.mark.parametrize("seed", range(24))
def test_values_and_derivatives(seed):
    run, x, kernel = drawn(seed)
    close(run(x, kernel), shift_depthwise(run)(x, kernel))
    assert count_operations(shift_depthwise(run), x, kernel)["conv_general_dilated"] == 0

    def slopes(run):
        return jax.grad(lambda x, kernel: jnp.sum(jnp.sin(run(x, kernel))), (0, 1))(x, kernel)

    if seed % 3 == 0:
        for one, two in zip(slopes(run), slopes(shift_depthwise(run)), strict=True):
            close(one, two, 1e-11)


@pytest.mark.parametrize("strides", [1, 2])
def test_a_large_kernel_is_a_small_program(strides):
    run = functools.partial(
        depthwise, layout=LAYOUTS[0], groups=2, strides=(strides,) * 2, padding=[(15, 15)] * 2
    )
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.normal(size=shape)) for shape in ((1, 17, 18, 2), (31, 31, 1, 2)))
    shifted = shift_depthwise(run)
    close(run(x, kernel), jax.jit(shifted)(x, kernel))
    assert sum(1 for _ in equations(trace(shifted, x, kernel))) < 20

    def slope(run):
        return jax.grad(lambda kernel: jnp.sum(jnp.sin(run(x, kernel))))(kernel)

    close(slope(run), jax.jit(slope, static_argnums=0)(shifted), 1e-11)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_types_are_kept_and_sums_are_wide(dtype):
    run, x, kernel = drawn(3)
    found = shift_depthwise(run)(x.astype(dtype), kernel.astype(dtype))
    expected = run(x.astype(dtype).astype(float), kernel.astype(dtype).astype(float))
    assert found.dtype == dtype
    close(np.asarray(expected), np.asarray(found, float), 2 * float(jnp.finfo(dtype).eps))


def test_other_convolutions_and_other_leaves_stay():
    def net(settings, x, kernel):
        y = depthwise(x, kernel, LAYOUTS[0], 1)
        return jax.nn.relu(y) if settings["activation"] == "relu" else y

    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.normal(size=shape)) for shape in ((1, 6, 6, 2), (3, 3, 2, 4)))
    settings = {"activation": "relu", "steps": 3}
    close(net(settings, x, kernel), shift_depthwise(net)(settings, x, kernel), 0.0)
    found = count_operations(shift_depthwise(net), settings, x, kernel)
    assert found["conv_general_dilated"] == 1


def test_inside_loops_and_calls_and_under_vmap():
    _, x, kernel = drawn(6)
    same = functools.partial(depthwise, layout=LAYOUTS[0], groups=x.shape[-1])
    kernel = kernel[..., : x.shape[-1]]

    def loop(x):
        turn = jax.jit(lambda carry, _: (jnp.tanh(same(carry, kernel)), None))
        return jax.lax.scan(turn, x, None, length=3)[0]

    close(loop(x), shift_depthwise(loop)(x))
    assert count_operations(shift_depthwise(loop), x)["conv_general_dilated"] == 0
    kernels = jnp.stack([kernel, 2 * kernel])
    close(
        jax.vmap(same, (None, 0))(x, kernels),
        jax.vmap(shift_depthwise(same), (None, 0))(x, kernels),
    )


def test_a_derivative_of_its_own_is_kept():
    @jax.custom_vjp
    def still(x, kernel):
        return depthwise(x, kernel, LAYOUTS[0], 2)

    still.defvjp(
        lambda x, k: (still(x, k), (x, k)), lambda saved, g: jax.tree.map(jnp.zeros_like, saved)
    )
    x, kernel = jnp.ones((1, 5, 5, 2)), jnp.ones((3, 3, 1, 2))
    slope = jax.grad(lambda x: jnp.sum(shift_depthwise(still)(x, kernel)))(x)
    assert not np.any(slope)
