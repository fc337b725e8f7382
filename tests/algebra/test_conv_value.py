"""`Conv` as a value: a checked, immutable pytree whose errors say what to do."""

from __future__ import annotations

import copy
import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repjax.algebra import Conv, NotFusableError, add, compose, concatenate

PLAIN = Conv(np.ones((3, 5, 2, 4)), np.zeros(4), padding=[(1, 0), (2, 2)], strides=(1, 2), groups=2)


def test_properties_say_what_it_is() -> None:
    assert (PLAIN.dims, PLAIN.kernel_size) == (2, (3, 5))
    assert (PLAIN.in_features, PLAIN.features) == (4, 4)
    assert PLAIN.output_size((8, 8)) == (7, 4)
    assert "3x5 convolution 4 → 4" in str(PLAIN)
    assert "strides (1, 2)" in repr(PLAIN)
    assert "dense convolution 2 → 3" in str(Conv(np.ones((2, 3))))


@pytest.mark.parametrize(
    ("padding", "pairs"),
    [
        (0, ((0, 0), (0, 0))),
        (2, ((2, 2), (2, 2))),
        ((1, 2), ((1, 1), (2, 2))),
        ([(1, 2), (-3, 0)], ((1, 2), (-3, 0))),
        ([1, (0, 2)], ((1, 1), (0, 2))),
        ("VALID", ((0, 0), (0, 0))),
    ],
)
def test_spellings_of_padding(padding: object, pairs: tuple) -> None:
    assert Conv(np.ones((3, 3, 1, 1)), padding=padding).padding == pairs


def test_leaves_have_names_in_paths() -> None:
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path({"a": PLAIN})]
    assert paths == ["['a'].kernel", "['a'].bias"]
    bare = PLAIN.replace(bias=None)
    assert len(jax.tree.leaves(bare)) == 1
    assert jax.tree.structure(bare) != jax.tree.structure(PLAIN)


def test_a_round_trip_keeps_everything() -> None:
    leaves, structure = jax.tree.flatten(PLAIN)
    again = jax.tree.unflatten(structure, leaves)
    assert again.kernel is PLAIN.kernel
    assert again.bias is PLAIN.bias
    assert (again.axes, again.groups) == (PLAIN.axes, PLAIN.groups)


def test_reconstruction_checks_nothing() -> None:
    for leaf in (None, object(), "kernel", np.ones(1), 3):
        odd = jax.tree.map(lambda _, leaf=leaf: leaf, PLAIN)
        assert isinstance(odd, Conv)
        assert odd.kernel is odd.bias is leaf
        assert odd.strides == PLAIN.strides
    shapes = jax.eval_shape(lambda conv: conv, PLAIN)
    assert shapes.kernel.shape == PLAIN.kernel.shape
    spec = jax.tree.structure(PLAIN)
    assert jax.tree.structure(jax.tree.map(jnp.shape, PLAIN), is_leaf=lambda x: x == (4,)) != spec


def test_it_is_immutable() -> None:
    with pytest.raises(AttributeError, match=r"replace\(groups="):
        PLAIN.groups = 1
    with pytest.raises(AttributeError, match="immutable"):
        del PLAIN.bias
    with pytest.raises(AttributeError):
        PLAIN.colour = 1
    changed = PLAIN.replace(padding=0, groups=1)
    assert (changed.padding, changed.groups, changed.in_features) == (((0, 0), (0, 0)), 1, 2)
    assert (PLAIN.padding, PLAIN.groups) == (((1, 0), (2, 2)), 2)
    with pytest.raises(ValueError, match="3 groups"):
        PLAIN.replace(groups=3)


def test_verbs_leave_their_arguments_alone() -> None:
    before = jax.tree.map(np.array, PLAIN)
    add(PLAIN, PLAIN)
    concatenate(PLAIN, PLAIN)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), before, PLAIN))


def test_every_problem_is_listed() -> None:
    with pytest.raises(ValueError, match="not a convolution") as caught:
        Conv(np.ones((3, 0, 2, 4), int), np.zeros(3), strides=0, dilation=-1, groups=3)
    for problem in (
        "kernel has dtype int64, expected a floating point type",
        "bias has shape (3,), expected (4,)",
        "strides (0, 0), dilation (-1, -1) and input dilation (1, 1) must be at least 1",
        "has an axis without taps",
        "4 output channels do not divide into 3 groups",
    ):
        assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strides": (1, 1, 1)}, "strides has 3 entries for 2 spatial axes"),
        ({"dilation": (2,)}, "dilation has 1 entries for 2 spatial axes"),
        ({"input_dilation": ()}, "input_dilation has 0 entries"),
        ({"padding": [(1, 1)]}, "padding has 1 entries for 2 spatial axes"),
        ({"padding": [(1, 1, 1), (0, 0)]}, "(low, high) pairs"),
        ({"padding": "SAME"}, "same_padding(size, kernel_size"),
        ({"padding": "SAME"}, "depends on the input size"),
        ({"groups": 0}, "0 groups"),
    ],
)
def test_a_wrong_geometry_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Conv(np.ones((3, 3, 2, 4)), **changes)


def test_a_kernel_needs_channels() -> None:
    with pytest.raises(ValueError, match=r"\(spatial..., in/groups, out\); found \(4,\)"):
        Conv(np.ones(4))


SMALL = Conv(np.ones((3, 2, 2)), np.ones(2), padding=1)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (Conv(np.ones((3, 3, 2, 2)), padding=1), "numbers of spatial axes differ"),
        (Conv(np.ones((1, 3, 2))), "input channels differ"),
        (Conv(np.ones((1, 2, 4))), "output channels differ"),
        (Conv(np.ones((1, 2, 2)), strides=2), "strides differ"),
        (Conv(np.ones((1, 2, 2)), input_dilation=2), "input dilation differs"),
        (Conv(np.ones((3, 2, 2))), "output sizes differ on axis 0 for some input sizes"),
    ],
)
def test_a_refused_sum_names_the_reason_and_both_geometries(other: Conv, reason: str) -> None:
    with pytest.raises(NotFusableError, match="cannot add") as caught:
        add(SMALL, other)
    for part in (reason, str(SMALL), str(other)):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        (SMALL, Conv(np.ones((1, 1, 2, 2))), "numbers of spatial axes differ"),
        (SMALL, Conv(np.ones((1, 3, 2))), "channels do not fit"),
        (SMALL, SMALL, "axis 0: zero padding between two spatial kernels"),
        (Conv(np.ones((1, 2, 2)), np.ones(2)), SMALL, "axis 0: bias meets zero padding"),
        (
            Conv(np.ones((1, 2, 2)), strides=2),
            Conv(np.ones((1, 2, 2)), input_dilation=2),
            "axis 0: strided, then dilated input",
        ),
        (
            SMALL,
            Conv(np.ones((1, 2, 2)), input_dilation=2),
            "axis 0: bias meets the zeros of a dilated input",
        ),
    ],
)
def test_a_refused_chain_names_the_reason_and_both_geometries(
    first: Conv, second: Conv, reason: str
) -> None:
    with pytest.raises(NotFusableError, match="cannot compose") as caught:
        compose(first, second)
    for part in (reason, f"{first}, then {second}"):
        assert part in str(caught.value)


def test_a_known_size_is_named_in_the_refusal() -> None:
    even = Conv(np.ones((1, 2, 2)), strides=2)
    odd = Conv(np.ones((2, 2, 2)), strides=2)
    assert add(even, odd, size=8).kernel_size == (2,)
    with pytest.raises(NotFusableError, match="output sizes differ on axis 0 for input size 9"):
        add(even, odd, size=9)
    with pytest.raises(NotFusableError, match="output sizes differ on axis 0 for some input"):
        add(even, odd)


def test_copies_and_pickles():
    conv = Conv(jnp.ones((3, 2, 4)), jnp.arange(4.0), strides=2, padding=1, groups=2)
    for other in (copy.copy(conv), copy.deepcopy(conv), pickle.loads(pickle.dumps(conv))):
        assert str(other) == str(conv)
        assert bool((other.bias == conv.bias).all())


def test_numpy_integers_are_numbers():
    conv = Conv(jnp.ones((3, 2, 4)), strides=np.int64(2), padding=[np.int64(1)])
    assert conv.strides == (2,)
    assert conv.padding == ((1, 1),)


def test_data_without_pixels():
    assert Conv(jnp.ones((1, 2, 4)))(jnp.ones((3, 0, 2))).shape == (3, 0, 4)
