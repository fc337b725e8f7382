"""Verbs under `jit`, `vmap` and `grad`; the program of a fold; types of the result."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repjax.algebra import (
    Conv,
    NotFusableError,
    add,
    batch_norm,
    compose,
    concatenate,
    embed,
    regroup,
)

from .folding import fold, operations
from .reference import assert_same, images


def random_conv(shape: tuple[int, ...], seed: int, **geometry: object) -> Conv:
    random = np.random.default_rng(seed)
    return Conv(random.normal(size=shape), random.normal(size=shape[-1:]), **geometry)


def parts() -> tuple[Conv, Conv, Conv, Conv]:
    """A spatial grouped, a pointwise, a depthwise and a last convolution, in float64."""
    return (
        random_conv((3, 2, 2, 4), 0, padding=[(1, 1), (1, 0)], groups=2),
        random_conv((1, 1, 4, 4), 1),
        random_conv((1, 1, 1, 4), 3, groups=4),
        random_conv((2, 3, 2, 2), 2, groups=2),
    )


def embedded(conv: Conv) -> Conv:
    return embed(conv, (5, 4), low=(2, 2))


def ungrouped(conv: Conv) -> Conv:
    return regroup(conv, 1)


VERBS: dict[str, tuple[Callable[..., Conv], tuple[int, ...]]] = {
    "add": (add, (0, 1, 2)),
    "concatenate": (concatenate, (0, 1)),
    "compose, loop over the second": (compose, (0, 2)),
    "compose, loop over the first": (compose, (1, 3)),
    "embed": (embedded, (0,)),
    "regroup": (ungrouped, (0,)),
}
parametrize_verbs = pytest.mark.parametrize("name", VERBS)


def arguments(name: str) -> tuple[Callable[..., Conv], tuple[Conv, ...]]:
    verb, numbers = VERBS[name]
    return verb, tuple(parts()[number] for number in numbers)


def assert_equal_convs(found: Conv, expected: Conv) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, two in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert_same(np.asarray(one), np.asarray(two))


@parametrize_verbs
def test_jit_gives_the_same(name: str) -> None:
    verb, convs = arguments(name)
    expected = verb(*convs)
    assert_equal_convs(jax.jit(verb)(*convs), expected)
    assert_equal_convs(fold(verb, *convs), expected)  # so the laws speak of this program


@parametrize_verbs
def test_vmap_folds_an_ensemble(name: str) -> None:
    verb, convs = arguments(name)
    others = jax.tree.map(lambda leaf: leaf[::-1] * 2 + 1, convs)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), convs, others)
    folded = jax.vmap(verb)(*stacked)
    for number, members in enumerate((convs, others)):
        member = jax.tree.map(lambda leaf, n=number: leaf[n], folded)
        assert_equal_convs(member, fold(verb, *members))


@parametrize_verbs
def test_no_data_convolution_runs_in_a_fold(name: str) -> None:
    verb, convs = arguments(name)
    names = set(operations(verb, *convs))
    assert names <= {
        *("add", "broadcast_in_dim", "concatenate", "dot_general", "dynamic_slice", "eq", "iota"),
        *("lt", "pad", "reduce_sum", "reshape", "select_n", "slice", "squeeze", "transpose"),
        "convert_element_type",
    }


def native_block(convs: tuple[Conv, ...], x: jax.Array) -> jax.Array:
    one, point, scale, last = convs
    return last(one(x) + scale(point(x)))


def fused_block(convs: tuple[Conv, ...], x: jax.Array) -> jax.Array:
    one, point, scale, last = convs
    return compose(add(one, compose(point, scale)), last)(x)


def test_the_gradient_of_a_fold_is_that_of_the_network() -> None:
    convs, x = parts(), jnp.asarray(images((5, 6), 4))
    target = jnp.asarray(images((4, 4), 2, seed=1))

    def loss(block: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
        return lambda convs, x: jnp.mean((block(convs, x) - target) ** 2)

    native = jax.jit(jax.value_and_grad(loss(native_block), argnums=(0, 1)))(convs, x)
    fused = jax.jit(jax.value_and_grad(loss(fused_block), argnums=(0, 1)))(convs, x)
    assert jax.tree.structure(native) == jax.tree.structure(fused)
    for one, two in zip(jax.tree.leaves(native), jax.tree.leaves(fused), strict=True):
        assert np.abs(one).max() > 0
        assert_same(np.asarray(two), np.asarray(one))


def test_a_refusal_comes_while_tracing() -> None:
    one, _, _, last = parts()
    with pytest.raises(NotFusableError):
        jax.eval_shape(compose, one, last.replace(padding=1))
    with pytest.raises(NotFusableError):
        jax.jit(jax.grad(lambda a, b: add(a, b).kernel.sum()))(one, one.replace(strides=2))


@pytest.mark.parametrize(
    ("types", "result"),
    [
        (("bfloat16", "bfloat16"), "float32"),
        (("float16", "float16"), "float32"),
        (("bfloat16", "float16"), "float32"),
        (("float32", "bfloat16"), "float32"),
        (("float64", "bfloat16"), "float64"),
        (("float64", "float32"), "float64"),
    ],
)
def test_the_type_of_a_fold(types: tuple[str, str], result: str) -> None:
    _, point, scale, _ = parts()
    convs = [point.astype(types[0]), scale.astype(types[1])]
    for verb in (add, concatenate, compose):
        merged = jax.eval_shape(verb, *convs)
        assert (merged.kernel.dtype, merged.bias.dtype) == (result, result)
    stats = [jax.ShapeDtypeStruct((4,), types[n % 2]) for n in range(4)]
    norm = jax.eval_shape(batch_norm, *stats)
    assert (norm.kernel.dtype, norm.bias.dtype) == (result, result)


def test_layout_verbs_keep_the_stored_type() -> None:
    stored = parts()[0].astype("bfloat16")
    for verb in (embedded, ungrouped):
        moved = jax.eval_shape(verb, stored)
        assert (moved.kernel.dtype, moved.bias.dtype) == ("bfloat16", "bfloat16")


def test_kernel_and_bias_of_different_types_meet_in_the_wider() -> None:
    _, point, scale, _ = parts()
    mixed = point.replace(kernel=point.kernel.astype("bfloat16"))
    merged = jax.eval_shape(compose, mixed, scale.astype("float32"))
    assert (merged.kernel.dtype, merged.bias.dtype) == ("float64", "float64")
