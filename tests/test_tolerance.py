"""What a candidate's outputs may differ by: rounding, and integers at ties."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repjax.compiling.tolerance import compare, expect, moved, outputs_of

U = 2.0**-24


def judged(run, arrays, other, roundoff=U):
    """What is wrong with another program."""
    return compare(expect(run, arrays, roundoff), outputs_of(other(*arrays)))


def drawn(*shapes):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def test_another_order_of_sums_is_rounding():
    arrays = drawn((64, 300), (300, 40))
    assert judged(jnp.matmul, arrays, lambda x, w: (w[::-1].T @ x[:, ::-1].T).T) is None
    assert judged(jnp.matmul, arrays, lambda x, w: (w.T @ x.T).T) is None


@pytest.mark.parametrize("wrong", [1e-4, 1e-2])
def test_more_than_rounding_is_refused(wrong):
    arrays = drawn((8, 30), (30, 4))
    problem = judged(jnp.matmul, arrays, lambda x, w: (x @ w).at[3, 1].add(wrong))
    assert problem.startswith("1 of 32 numbers differ, the worst by")


def test_half_precision_has_its_own_rounding():
    arrays = [array.astype(jnp.bfloat16) for array in drawn((8, 30), (30, 4))]
    wide = [array.astype(jnp.float32) for array in arrays]

    def other(x, w):
        return jnp.matmul(*wide).astype(jnp.bfloat16)

    assert judged(jnp.matmul, arrays, other, 2.0**-9) is None
    assert judged(jnp.matmul, arrays, lambda x, w: x @ w + 1, 2.0**-9) is not None


def test_integers_may_differ_at_ties_only():
    scores = jnp.asarray([[1.0, 1.0 + 1e-7, 0.0], [1.0, 0.9, 0.0]], jnp.float32)

    def first(scores):
        return jnp.argmax(scores, -1)

    assert first(scores).tolist() == [1, 0]
    assert judged(first, [scores], lambda s: jnp.asarray([0, 0])) is None
    assert judged(first, [scores], lambda s: jnp.asarray([1, 1])) == "1 of 2 integers differ"
    assert judged(first, [scores], lambda s: jnp.asarray([2, 0])) == "1 of 2 integers differ"


def test_booleans_and_keys():
    x = jnp.asarray([1.0, 1e-9 + 0.5, -1.0], jnp.float32)

    def above(x):
        return x > 0.5

    assert judged(above, [x], lambda x: jnp.asarray([True, True, False])) is None
    assert judged(above, [x], lambda x: jnp.asarray([True, False, True])) is not None
    key = jax.random.key(0)
    assert judged(lambda key: key, [key], lambda key: key) is None
    assert judged(lambda key: key, [key], lambda _: jax.random.key(1)) is not None


def test_integers_of_integers_are_equal():
    assert judged(lambda n: n * 2, [jnp.arange(3)], lambda n: n + n) is None
    assert judged(lambda n: n * 2, [jnp.arange(3)], lambda n: n) == "2 of 3 integers differ"


def test_places_that_are_not_finite_are_the_same():
    x = jnp.asarray([1.0, 0.0, -1.0], jnp.float32)
    assert judged(jnp.log, [x], jnp.log) is None
    problem = judged(jnp.log, [x], lambda x: jnp.nan_to_num(jnp.log(x)))
    assert problem.startswith("2 of 3 numbers differ")
    assert judged(jnp.log, [x], lambda x: jnp.full(3, jnp.nan)) is not None


def test_the_output_is_named_where_there_are_several():
    def run(x):
        return (x, x + 1)

    problem = judged(run, drawn((3,)), lambda x: (x, x))
    assert problem.startswith("output 1: 3 of 3 numbers differ")


def test_what_is_moved():
    arrays = {
        "x": jnp.asarray([1.0, -2.0, 0.0]),
        "zeros": jnp.zeros(2, jnp.bfloat16),
        "count": jnp.arange(2),
        "key": jax.random.key(0),
        "wave": jnp.asarray([1 + 1j]),
    }
    found = moved(arrays, 2.0**-3, 0)
    np.testing.assert_array_equal(abs(found["x"] - arrays["x"]), [0.125, 0.25, 0.0])
    np.testing.assert_array_equal(abs(found["zeros"].astype(float)), 0.125)
    assert found["zeros"].dtype == jnp.bfloat16
    assert found["count"] is arrays["count"]
    assert found["key"] is arrays["key"]
    assert abs(found["wave"][0] - arrays["wave"][0]) == pytest.approx(0.125 * 2**0.5)
