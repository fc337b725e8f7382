"""`Conv.__call__` is the definition: XLA's convolution against the NumPy sum over taps."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repjax.algebra import Conv

from .reference import apply, assert_same, images, magnitude

# name: kernel shape, geometry, data size
CASES = {
    "dense": ((3, 4), {}, ()),
    "dense grouped": ((2, 6), {"groups": 3}, ()),
    "1-D even, asymmetric": ((4, 2, 3), {"padding": [(1, 2)]}, (9,)),
    "1-D cropped": ((3, 2, 3), {"padding": [(-2, -1)], "dilation": 2}, (12,)),
    "1-D cropped to nothing": ((3, 2, 3), {"padding": [(-4, -3)]}, (7,)),
    "1-D crop passes the end": ((2, 2, 3), {"padding": [(-5, 6)]}, (4,)),
    "1-D padding alone": ((1, 2, 3), {"padding": [(3, -4)]}, (4,)),
    "1-D transposed": ((3, 2, 3), {"padding": [(2, 2)], "input_dilation": 2}, (5,)),
    "1-D transposed, cropped": ((3, 2, 3), {"padding": [(-1, 1)], "input_dilation": 3}, (5,)),
    "1-D transposed, strided": (
        (3, 1, 4),
        {"padding": 3, "input_dilation": 3, "strides": 2, "groups": 2},
        (6,),
    ),
    "2-D non-square": (
        (3, 2, 2, 4),
        {"padding": [(1, 0), (0, 2)], "strides": (2, 1), "dilation": (1, 2), "groups": 2},
        (7, 6),
    ),
    "2-D depthwise": ((3, 3, 1, 4), {"padding": 1, "groups": 4}, (5, 6)),
    "2-D axes differ": (
        (1, 3, 2, 2),
        {"padding": [(0, 0), (2, -1)], "input_dilation": (1, 2), "strides": (2, 3)},
        (5, 7),
    ),
    "3-D": ((2, 1, 3, 2, 2), {"padding": [(1, 0), (0, 0), (1, 1)], "strides": 2}, (4, 3, 5)),
}


def conv_of(name: str) -> tuple[Conv, np.ndarray]:
    shape, geometry, size = CASES[name]
    random = np.random.default_rng(1)
    conv = Conv(random.normal(size=shape), random.normal(size=shape[-1]), **geometry)
    return conv, images(size, conv.in_features)


@pytest.mark.parametrize("name", CASES)
def test_equals_the_definition(name: str) -> None:
    conv, x = conv_of(name)
    assert_same(np.asarray(conv(jnp.asarray(x))), apply(conv, x), conv)
    assert conv.output_size(x.shape[1:-1]) == apply(conv, x).shape[1:-1]


@pytest.mark.parametrize("batch", [(), (2,), (2, 1, 3), (0,)])
@pytest.mark.parametrize("name", ["dense grouped", "1-D transposed", "2-D depthwise"])
def test_any_number_of_batch_axes(name: str, batch: tuple[int, ...]) -> None:
    conv, x = conv_of(name)
    count = int(np.prod(batch, dtype=int))
    x = images(x.shape[1:-1], conv.in_features, batch=count)
    y = conv(jnp.asarray(x.reshape(*batch, *x.shape[1:])))
    expected = apply(conv, x)
    assert_same(np.asarray(y), expected.reshape(*batch, *expected.shape[1:]))


def test_an_absent_bias_is_exactly_zero() -> None:
    conv, x = conv_of("2-D depthwise")
    without = conv.replace(bias=None)
    assert (np.asarray(without(jnp.zeros_like(x))) == 0).all()
    assert_same(apply(without, x), apply(conv, x) - np.asarray(conv.bias))


@pytest.mark.parametrize(
    ("data", "kernel", "bias", "result"),
    [
        ("float32", "float32", "float32", "float32"),
        ("bfloat16", "bfloat16", "bfloat16", "bfloat16"),
        ("float16", "float16", None, "float16"),
        ("float32", "bfloat16", "bfloat16", "float32"),
        ("bfloat16", "bfloat16", "float32", "float32"),
        ("bfloat16", "float16", None, "float32"),
        ("int32", "float32", None, "float32"),
        ("float64", "float32", "bfloat16", "float64"),
    ],
)
def test_runs_in_the_common_type(data: str, kernel: str, bias: str | None, result: str) -> None:
    conv, x = conv_of("1-D even, asymmetric")
    conv = conv.replace(
        kernel=conv.kernel.astype(kernel), bias=None if bias is None else conv.bias.astype(bias)
    )
    rounded = jnp.asarray(x * 4).astype(data)
    y = conv(rounded)
    assert y.dtype == result
    exact = np.asarray(rounded, np.float64)
    error = np.abs(np.asarray(y, np.float64) - apply(conv, exact))
    assert (error <= 8 * float(jnp.finfo(result).eps) * magnitude(conv, exact)).all()


def test_precision_reaches_the_convolution() -> None:
    conv, x = conv_of("1-D even, asymmetric")
    program = jax.make_jaxpr(lambda x: conv(x, precision="highest"))(jnp.asarray(x))
    (equation,) = [e for e in program.jaxpr.eqns if e.primitive.name == "conv_general_dilated"]
    assert equation.params["precision"] == (jax.lax.Precision.HIGHEST,) * 2


@pytest.mark.parametrize("shape", [(4,), (9, 3), (2, 9, 3)])
def test_data_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    conv, _ = conv_of("1-D even, asymmetric")
    with pytest.raises(ValueError, match=r"expected data .* 1 spatial axes, 2"):
        conv(jnp.zeros(shape))
