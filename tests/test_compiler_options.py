"""Compiler options are found by trial and never raise."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxlib.version import __version_info__

from repjax import compiler_options, count_operations
from repjax.compiling import options as module


def test_what_this_version_of_jaxlib_has():
    found = compiler_options("cpu")
    if __version_info__[:2] >= (0, 11):
        assert found["xla_cpu_experimental_onednn_custom_call"] is True
    else:
        assert found == {}


def test_the_default_platform_is_that_of_the_default_backend():
    assert compiler_options() == compiler_options(jax.default_backend())


@pytest.mark.parametrize("platform", ["tpu", "no such platform"])
def test_platforms_without_options(platform):
    assert compiler_options(platform) == {}


def test_every_dictionary_is_new():
    compiler_options("cpu")["mine"] = True
    assert "mine" not in compiler_options("cpu")


def test_an_unknown_option_has_no_effect():
    assert not module.has_effect({"xla_made_up": True}, "convolution", "cpu")


def test_an_option_without_the_expected_call_has_no_effect():
    assert not module.has_effect({}, "__no_such_call", "cpu")
    assert module.has_effect({}, "convolution", "cpu")


@pytest.mark.parametrize("slopes", [False, True])
def test_programs_are_the_same_with_the_options(slopes):
    def loss(kernel, x):
        y = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return jnp.sum(jax.nn.relu(y) ** 2)

    run = jax.grad(loss) if slopes else loss
    rng = np.random.default_rng(0)
    kernel, x = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((3, 3, 8, 8), (2, 9, 9, 8)))
    found = jax.jit(run, compiler_options=compiler_options() or None)(kernel, x)
    expected = run(kernel, x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_function_with_options_is_counted():
    fast = jax.jit(lambda x: jnp.sin(x @ x), compiler_options={"xla_backend_optimization_level": 0})
    found = count_operations(fast, jax.ShapeDtypeStruct((4, 4), jnp.float32))
    assert found == {"dot_general": 1, "sin": 1}
