"""The branches beyond convolution, pool and identity: depthwise, fixed, online, chained sums."""

from __future__ import annotations

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import repjax
from repjax.blocks import RepConv
from repjax.branches import (
    AveragePool,
    Depthwise,
    Fixed,
    Identity,
    KxK,
    Norm,
    Online,
    Pointwise,
    Scale,
    Sequence,
    Shift,
    Sum,
    equation,
    parse,
)
from tests.blocks.cases import convolutions, described, largest, random_variables
from tests.evaluate import evaluated

INPUTS = 4
EDGES = ("sobelx", "sobely", "laplacian")
LINEAR = Sum(
    (
        Scale(KxK(3)),
        Scale(Sequence(Pointwise(), Fixed("mean"))),
        Scale(Sequence(Pointwise(), Fixed("cosine"))),
        Scale(Sequence(Sum((Pointwise(), Fixed("eye", 1))), KxK(3), features=8)),
        Scale(Sequence(Depthwise(3, multiplier=2), Pointwise())),
    )
)
EDGE = tuple(Scale(Sequence(Pointwise(bias=True), Fixed(edge)), bias=True) for edge in EDGES)
# what a block adds up, and whether one of its branches can take a kernel back
BLOCKS: dict[str, tuple[tuple[Any, ...], bool]] = {
    "edges": ((KxK(3, bias=True), *EDGE), True),
    "linear": ((Norm(LINEAR),), True),
    "online": ((Norm(Online(LINEAR)), Norm(Pointwise())), True),
    "separable": ((Sequence(Depthwise(3, multiplier=2), Pointwise()), Depthwise(3)), False),
    "shifted": ((Norm(Sequence(Shift(Identity()), KxK(3))), Pointwise()), True),
    "shifted_after": ((Shift(Scale(KxK(3))), Scale(Shift(Pointwise()))), True),
    "chained_sums": (
        (
            KxK(5, bias=True),
            Sequence(Sum((KxK(3), Pointwise(bias=True))), Sum((Norm(KxK(3)), Scale(Identity())))),
        ),
        True,
    ),
    "online_chain": (
        (Norm(Online(Sequence(Sequence(LINEAR, Sum((KxK(3), Pointwise()))), KxK(3)))),),
        False,
    ),
}


def block(name: str, **fields: Any) -> RepConv:
    return RepConv(INPUTS, branches=BLOCKS[name][0], norm=None, use_bias=False, **fields)


def initialized(module: RepConv, x: Any) -> Any:
    return evaluated(module.init)(jax.random.key(0), x)


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).normal(size=(*shape, INPUTS))


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize(
    ("geometry", "size"),
    [
        ((1, 1, 1, None), (11, 12)),
        ((2, 2, 1, 1), (12, 13)),
        ((1, 2, 2, ((0, 3), (2, 1))), (13, 12)),
    ],
)
def test_fuses_and_unfuses(name: str, geometry: Any, size: tuple[int, int], x64: None) -> None:
    strides, groups, dilation, padding = geometry
    fields = {"groups": groups, "dilation": dilation, "padding": padding}
    if name != "chained_sums":
        fields["strides"] = strides
    one, x = block(name, **fields), images(2, *size)
    variables = random_variables(one, x)
    deployed = evaluated(repjax.fuse_params)(variables)
    wanted = jax.eval_shape(one.deploy().init, jax.random.key(0), x)
    assert described(deployed) == described(jax.tree.map(to_float64, wanted))
    y, z = evaluated(one.apply)(variables, x), evaluated(one.deploy().apply)(deployed, x)
    assert y.shape == z.shape
    assert largest(y - z) <= 1e-12 * largest(y)
    assert convolutions(one.deploy().apply, deployed, x) == 1
    edited = jax.tree.map(lambda leaf: leaf * 1.5, deployed)
    if BLOCKS[name][1]:
        again = repjax.fuse_params(repjax.unfuse_params(edited, variables))
        for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(edited), strict=True):
            assert largest(a - b) <= 1e-12 * largest(b)
    else:
        with pytest.raises(repjax.NotFusableError, match="no branch"):
            repjax.unfuse_params(edited, variables)


def to_float64(leaf: Any) -> Any:
    return jax.ShapeDtypeStruct(leaf.shape, jnp.float64)


@pytest.mark.parametrize("name", BLOCKS)
def test_names_are_read_back(name: str) -> None:
    branch = block(name).branch(INPUTS)
    again = parse(equation(branch))
    assert equation(again) == equation(branch)
    assert again.leaves() == branch.leaves()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("y=sobelx5x5", "does not exist with size"),
        ("y=conv3x3+eye3x3", "does not exist with size"),
        ("y=cosine3+conv3", "does not exist with size"),
        ("y=scale[bias](conv3x3[bias])", "bias directly after a bias"),
        ("y=(conv3x3)(conv1x1)", "normal form"),
        ("y=norm(conv3x3)(conv1x1)", "the end"),
        ("y=(conv3x3+conv1x1", r"'\)'"),
        ("y=depthwise3x3[multiplier=0]", "at least 1"),
        ("y=conv3x3[multiplier=2]", "expected one of"),
        ("y=sobelx3x3[bias]", "the end"),
        ("y=gabor3x3", "a branch"),
    ],
)
def test_refuses_other_names(name: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse(name)


def test_second_of_a_chain_is_no_norm() -> None:
    for second in (Norm(KxK(3)), Scale(KxK(3)), Sequence(Pointwise(), KxK(3))):
        with pytest.raises(ValueError, match="second of a Sequence has a kernel"):
            Sequence(Pointwise(), second).resolve(2, use_bias=False)


def test_an_unknown_pattern_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"'gabor'.*'laplacian'"):
        Fixed("gabor").resolve(2, use_bias=False)


def test_depthwise_reads_every_channel_by_itself(x64: None) -> None:
    one = RepConv(6, branches=(Depthwise(3, multiplier=2),), norm=None, padding=0, use_bias=False)
    x = np.random.default_rng(0).normal(size=(1, 5, 6, 3))
    variables = random_variables(one, x)
    (node,) = variables["params"].values()
    assert node["kernel"].shape == (3, 3, 1, 6)
    y = evaluated(one.apply)(variables, x)
    for channel in range(6):
        view = np.lib.stride_tricks.sliding_window_view(x[0, :, :, channel // 2], (3, 3))
        wanted = np.einsum("hwuv,uv->hw", view, node["kernel"][:, :, 0, channel])
        np.testing.assert_allclose(y[0, :, :, channel], wanted, rtol=1e-12)


@pytest.mark.parametrize(("multiplier", "groups"), [(1, 1), (3, 1), (2, 2), (4, 4)])
def test_the_tree_tells_inputs_behind_a_depthwise_kernel(multiplier: int, groups: int) -> None:
    chain = Sequence(Depthwise(3, multiplier=multiplier), Pointwise())
    one = RepConv(8, branches=(chain,), norm=None, groups=groups)
    x = jax.ShapeDtypeStruct((1, 6, 6, INPUTS), jnp.float32)
    variables = jax.eval_shape(one.init, jax.random.key(0), x)
    deployed = jax.eval_shape(repjax.fuse_params, variables)
    assert deployed["params"]["kernel"].shape == (3, 3, INPUTS // groups, 8)


def masks(*patterns: tuple[str, int], features: int = 6) -> list[np.ndarray]:
    """Initial values of fixed kernels."""
    first = Sequence(Pointwise(), KxK(3), features=features)
    found = []
    for pattern, size in patterns:
        branch = Sequence(Pointwise(), Fixed(pattern, size), features=features)
        one = RepConv(features, branches=(first, branch), norm=None)
        variables = initialized(one, jnp.ones((1, 4, 4, 3)))
        (leaf,) = jax.tree.leaves(variables["fixed"])
        found.append(np.asarray(leaf))
    return found


def test_edge_masks() -> None:
    x, y, laplacian = (mask[:, :, 0] for mask in masks(*((edge, 3) for edge in EDGES)))
    rows = np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]])
    for channel in range(6):
        np.testing.assert_array_equal(x[..., channel], rows)
        np.testing.assert_array_equal(y[..., channel], rows.T)
        np.testing.assert_array_equal(laplacian[..., channel], [[0, 1, 0], [1, -4, 1], [0, 1, 0]])


@pytest.mark.parametrize("features", [6, 5])
@pytest.mark.parametrize("size", [3, 5])
def test_means_and_cosines(features: int, size: int) -> None:
    mean, cosine = masks(("mean", size), ("cosine", size), features=features)
    np.testing.assert_allclose(mean, np.full((size, size, 1, features), size**-2.0), rtol=1e-7)
    for u, v, channel in itertools.product(range(size), range(size), range(features)):
        if channel < features / 2:
            wanted = math.cos(math.pi * (u + 0.5) * (channel + 1) / size)
        else:
            wanted = math.cos(math.pi * (v + 0.5) * (channel + 1 - features / 2) / size)
        assert cosine[u, v, 0, channel] == pytest.approx(wanted, abs=1e-6)


def test_eyes_repeat_the_channels_of_a_group() -> None:
    first = Sum((Pointwise(kernel_init=jax.nn.initializers.zeros), Fixed("eye", 1)))
    chain = Sequence(first, KxK(3), features=8)
    one = RepConv(4, branches=(chain,), norm=None, groups=2, use_bias=False)
    (mask,) = jax.tree.leaves(initialized(one, jnp.ones((1, 4, 4, 4)))["fixed"])
    np.testing.assert_array_equal(mask[0, 0], np.tile(np.eye(2), 4))


def test_fixed_kernels_are_no_parameters_and_are_read_from_the_tree() -> None:
    one = block("edges")
    x = jnp.asarray(images(1, 6, 6), jnp.float32)
    variables = initialized(one, x)
    names = {path[-1].key for path, _ in jax.tree_util.tree_leaves_with_path(variables["params"])}
    assert names == {"kernel", "bias", "scale"}
    assert "fixed" not in repjax.fuse_params(variables)
    doubled = {**variables, "fixed": jax.tree.map(lambda mask: mask * 2, variables["fixed"])}
    run = evaluated(one.apply)
    y, z = run(variables, x), run(doubled, x)
    assert largest(y - z) > 0.1
    np.testing.assert_allclose(
        z,
        evaluated(one.deploy().apply)(evaluated(repjax.fuse_params)(doubled), x),
        rtol=1e-4,
        atol=1e-5,
    )
    with pytest.raises(repjax.MalformedTreeError, match=r"mask: missing"):
        repjax.fuse_params({"params": variables["params"]})


class TestOnline:
    """A branch merged in training is the same branch."""

    native = RepConv(INPUTS, branches=(Norm(LINEAR),), norm=None, use_bias=False, groups=2)
    merged = native.clone(branches=(Norm(Online(LINEAR)),))

    def test_has_the_same_tree(self) -> None:
        x = jnp.asarray(images(1, 6, 7), jnp.float32)
        one, two = (initialized(module, x) for module in (self.native, self.merged))
        jax.tree.map(np.testing.assert_array_equal, one, two)

    def test_computes_and_trains_alike(self, x64: None) -> None:
        x = images(2, 6, 7)
        variables = random_variables(self.native, x)

        def loss(params: Any, module: RepConv) -> Any:
            y, state = module.apply(
                {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
            )
            return (y**3).sum(), state

        gradients = [
            evaluated(jax.value_and_grad(lambda p, m=m: loss(p, m), has_aux=True))(
                variables["params"]
            )
            for m in (self.native, self.merged)
        ]
        for one, two in zip(*map(jax.tree.leaves, gradients), strict=True):
            assert largest(one - two) <= 1e-10 * largest(one)
        y, z = (evaluated(m.apply)(variables, x) for m in (self.native, self.merged))
        assert largest(y - z) <= 1e-12 * largest(y)

    def test_convolves_the_data_once(self) -> None:
        x = jax.ShapeDtypeStruct((1, 6, 7, INPUTS), jnp.float32)
        for module, number in ((self.native, 10), (self.merged, 1)):
            variables = jax.eval_shape(module.init, jax.random.key(0), x)
            assert convolutions(module.apply, variables, x) == number

    def test_refuses_a_norm(self) -> None:
        with pytest.raises(ValueError, match="a norm cannot be merged"):
            Online(Sum((Norm(KxK(3)), Pointwise()))).resolve(2, use_bias=False)

    @pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
    def test_keeps_types(self, dtype: str, strict: None) -> None:
        chain = Sequence(Pointwise(), Sum((KxK(3), AveragePool(3))))
        module = RepConv(INPUTS, branches=(Online(chain),), norm=None, dtype=dtype)
        x = jnp.asarray(images(1, 6, 7), jnp.float32)
        variables = initialized(module, x)
        assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
        assert jax.eval_shape(module.apply, variables, x).dtype == dtype


def test_initializers_belong_to_branches() -> None:
    constant = jax.nn.initializers.constant
    branches = (
        Norm(KxK(3, kernel_init=constant(2.0)), scale_init=constant(3.0)),
        Scale(Pointwise(bias=False), bias=True, scale_init=constant(5.0), bias_init=constant(7.0)),
        KxK(5, bias=True, bias_init=constant(11.0)),
    )
    one = RepConv(4, branches=branches, norm=None)
    (node,) = initialized(one, jnp.ones((1, 6, 6, 4)))["params"].values()
    assert set(np.ravel(node["conv3x3"]["kernel"])) == {2}
    assert set(np.ravel(node["conv3x3"]["norm"]["scale"])) == {3}
    assert set(np.ravel(node["conv1x1"]["scale"])) == {5}
    assert set(np.ravel(node["conv1x1"]["bias"])) == {7}
    assert set(np.ravel(node["conv5x5"]["bias"])) == {11}
    assert KxK(3, kernel_init=constant(2.0)) == KxK(3)  # the same branch, another start
