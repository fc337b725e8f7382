"""Arrays of state dicts: which shapes and types are taken, which are refused."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repjax.torch.arrays import ArrayError, as_numpy, same_map, to_ours


class Tensor:
    """What a PyTorch tensor does: no NumPy where it needs a gradient or its type is new."""

    def __init__(self, array: Any, dtype: str, *, requires_grad: bool = True) -> None:
        self.array, self.dtype, self.requires_grad = array, f"torch.{dtype}", requires_grad

    def detach(self) -> Tensor:
        return type(self)(self.array, self.dtype[6:], requires_grad=False)

    def cpu(self) -> Tensor:
        return self

    def float(self) -> Tensor:
        return Tensor(self.array.astype(np.float32), "float32", requires_grad=self.requires_grad)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if self.requires_grad:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad.")
        if self.dtype in ("torch.bfloat16", "torch.float8_e5m2"):
            raise TypeError("Got unsupported ScalarType BFloat16")
        return np.asarray(self.array)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float8_e5m2"])
def test_tensors_that_require_gradients_or_are_narrow(dtype: str) -> None:
    values = jnp.asarray([0.5, -3.0, 1.25], dtype)
    found = as_numpy(Tensor(np.asarray(values), dtype))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.asarray(values, np.float32))


class Sparse(Tensor):
    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        raise TypeError("can't convert Sparse layout tensor to numpy.")


def test_what_numpy_cannot_read_is_named() -> None:
    with pytest.raises(ArrayError, match="is a Sparse that NumPy cannot read: can't convert"):
        as_numpy(Sparse(np.ones(2), "float32"))


@pytest.mark.parametrize(
    ("found", "wanted", "same"),
    [
        ((8, 4, 1, 3), (8, 4, 3, 1), False),
        ((8, 4, 3, 1), (8, 4, 3, 1), True),
        ((8, 4, 3), (8, 4, 3, 1), False),
        ((8, 4), (8, 4, 1, 1), True),
        ((8, 4, 1), (8, 4, 1, 1), True),
        ((4, 8), (8, 4, 1, 1), False),
        ((1, 8, 4), (8, 4), False),
        ((8, 4, 1, 1), (8, 4, 3, 3), False),
        ((8, 1, 1), (8,), True),
        ((1, 1, 1, 8), (8,), True),
        ((1,), (1,), True),
        ((4, 2), (8,), False),
        ((1,), (), True),
    ],
)
def test_only_axes_of_one_come_and_go(found: Any, wanted: Any, same: bool) -> None:
    assert same_map(found, wanted) is same


def test_a_transposed_asymmetric_kernel_is_refused() -> None:
    wanted = jax.ShapeDtypeStruct((3, 1, 4, 8), jnp.float32)
    assert to_ours(np.ones((8, 4, 3, 1)), "kernel", wanted).shape == (3, 1, 4, 8)
    with pytest.raises(ArrayError, match=r"has shape \(8, 4, 1, 3\), expected \(8, 4, 3, 1\)"):
        to_ours(np.ones((8, 4, 1, 3)), "kernel", wanted)


@pytest.mark.parametrize(
    ("array", "dtype", "words"),
    [
        ([1.0, np.inf], "float32", "1 of 2 numbers are not finite"),
        ([1.0, 1e6], "float16", r"numbers up to 1e\+06, too large for float16"),
        ([1.0, -1e-3], "float32", "1 of 2 variances are negative"),
        ([1, 2], "float32", "has dtype int64, expected floating point"),
        (["a", "b"], "float32", "expected floating point"),
        ([None, None], "float32", "has dtype object, expected floating point"),
    ],
)
def test_numbers_that_are_no_weights_are_refused(array: Any, dtype: str, words: str) -> None:
    with pytest.raises(ArrayError, match=words):
        to_ours(array, "var", jax.ShapeDtypeStruct((2,), dtype))
