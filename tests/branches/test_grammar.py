"""Names of nodes: every description reads back, every documented example parses, errors point."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repjax.branches import (
    AveragePool,
    Branch,
    Depthwise,
    Fixed,
    Identity,
    KxK,
    Negate,
    Norm,
    Pointwise,
    Scale,
    Sequence,
    Sum,
    equation,
    grammar,
    parse,
)

EPSILONS = st.one_of(
    st.just(1e-5), st.floats(0, 10, allow_subnormal=False), st.sampled_from([1e-3, 0.0, 1])
)


@st.composite
def kernels(draw: Any, dims: int) -> Branch:
    """A branch with taps of its own, sizes given in all the accepted ways."""
    sizes = st.one_of(st.integers(1, 7), st.tuples(*[st.integers(1, 7)] * dims))
    size = draw(sizes)
    smallest = min(size) if isinstance(size, tuple) else size
    tap = draw(st.one_of(st.none(), st.integers(0, smallest - 1)))
    kind = draw(st.sampled_from(["conv", "conv", "depthwise", "pointwise", "pool", "mean"]))
    if kind == "pointwise":
        return Pointwise(bias=draw(st.sampled_from([None, True, False])))
    if kind == "pool":
        return AveragePool(size, tap)
    if kind == "mean":
        return Fixed("mean", size)
    rest = {
        "dilation": draw(st.one_of(st.integers(1, 4), st.tuples(*[st.integers(1, 4)] * dims))),
        "tap": tap,
        "bias": draw(st.sampled_from([None, True, False])),
    }
    if kind == "depthwise":
        return Depthwise(size, draw(st.integers(1, 8)), **rest)
    return KxK(size, **rest)


def wrapped(children: Any) -> Any:
    """What can stand around other branches."""
    norm = st.builds(Norm, children, EPSILONS, st.booleans(), st.booleans())
    return st.one_of(
        norm,
        st.builds(Scale, children, st.booleans()),
        st.builds(Negate, children),
        st.builds(lambda branches: Sum(tuple(branches)), st.lists(children, min_size=2)),
    )


@st.composite
def descriptions(draw: Any) -> Branch:
    """A resolved description with a trained kernel in it."""
    dims = draw(st.integers(1, 3))
    leaf = st.one_of(kernels(dims), st.just(Identity()))

    def grown(children: Any) -> Any:
        chain = st.builds(Sequence, children, kernels(dims))
        return st.one_of(wrapped(children), chain)

    branches = draw(st.lists(st.recursive(leaf, grown, max_leaves=6), min_size=1, max_size=4))
    total = Sum((KxK(3), *draw(st.permutations(branches))))
    try:
        return total.resolve(dims, use_bias=draw(st.booleans()))
    except ValueError as error:  # a norm directly after a norm, and its like
        if "directly after" not in str(error):
            raise
        return KxK(3).resolve(dims, use_bias=False)


@given(descriptions())
def test_every_description_reads_back(branch: Branch) -> None:
    name = equation(branch)
    assert parse(name) == branch
    assert "." not in name
    assert "/" not in name


def documented() -> list[str]:
    """The equations that the documentation of the grammar shows."""
    return re.findall(r"^    (y=\S+)", grammar.__doc__ or "", re.MULTILINE)


def test_documented_examples_are_found() -> None:
    assert len(documented()) >= 5
    assert "y=4*norm(conv3x3)+norm(conv1x1)+norm(identity)" in documented()


@pytest.mark.parametrize("name", documented())
def test_documented_examples_parse(name: str) -> None:
    assert equation(parse(name)) == name


K3 = KxK((3, 3), (1, 1), (1, 1), bias=False)


@pytest.mark.parametrize(
    ("name", "branch"),
    [
        ("y=conv3x3", K3),
        ("y=-conv3x3", Negate(K3)),
        ("y=2*conv3x3-2*conv3x3", Sum((K3, K3, Negate(K3), Negate(K3)))),
        ("y=conv3x3-(-conv3x3)", Sum((K3, Negate(Negate(K3))))),
        ("y=(conv3x3+identity)+identity", Sum((Sum((K3, Identity())), Identity()))),
        ("y=conv3x3(conv3x3+identity)", Sequence(Sum((K3, Identity())), K3)),
        ("y=norm[epsilon=1e-3,bias=no](conv3x3)", Norm(K3, 1e-3, bias=False)),
        ("y=conv4x3[bias,dilation=2x1,tap=2x0]", KxK((4, 3), (2, 1), (2, 0), bias=True)),
        ("y=scale(average2x2[tap=1](conv3x3))", Scale(Sequence(K3, AveragePool((2, 2), (1, 1))))),
        ("y=conv5", KxK((5,), (1,), (2,), bias=False)),
    ],
)
def test_by_hand(name: str, branch: Branch) -> None:
    assert parse(name) == branch
    assert equation(branch) == name


def test_chains_of_other_widths_are_counted_together() -> None:
    """Widths are in the shapes, not in the name, so the name must not tell them apart."""
    chains = tuple(Sequence(Pointwise(), KxK(3), features=width) for width in (4, 8))
    branch = Sum(chains).resolve(2, use_bias=False)
    assert equation(branch) == "y=2*conv3x3(conv1x1)"
    assert equation(parse(equation(branch))) == equation(branch)
    assert [path[0] for path in branch.leaves()][::2] == ["conv1x1_conv3x3_0", "conv1x1_conv3x3_1"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("conv3x3", "does not begin with 'y='"),
        ("y=", "expected a branch at character 2"),
        ("y=conv3x3+", "expected a branch at character 10"),
        ("y=conv3x3+conf1x1", "expected a branch at character 10"),
        ("y=conv", "expected a size at character 6"),
        ("y=norm(conv3x3", r"expected '\)' at character 14"),
        ("y=norm", r"expected '\(' at character 6"),
        ("y=conv3x3)", "expected the end at character 9"),
        ("y=conv3x3[dilation=2", r"expected ',' or '\]' at character 20"),
        ("y=conv3x3[]", "expected an attribute at character 10"),
        ("y=conv3x3[epsilon=1]", "attribute 'epsilon', expected one of"),
        ("y=conv3x3[bias,bias]", "attribute 'bias', expected one of"),
        ("y=conv3x3[tap]", "expected numbers like 3 or 3x3, found ''"),
        ("y=conv3x3[tap=2x2x2]", "tap has 3 entries for 2 spatial axes"),
        ("y=conv3x3[tap=3]", r"tap \(3, 3\) lies outside a kernel of size \(3, 3\)"),
        ("y=conv3x3[dilation=0]", r"dilation \(0, 0\), expected at least 1"),
        ("y=conv0x3", "at least 1 tap on every axis"),
        ("y=norm[epsilon=many](conv3x3)", "epsilon is no number: 'many'"),
        ("y=norm[epsilon=-1e-3](conv3x3)", "epsilon -0.001: expected a finite number"),
        ("y=norm(norm(conv3x3))", "a norm directly after a norm"),
        ("y=conv3x3+conv1", r"expected one number of spatial axes, found \[1, 2\]"),
        ("y=identity", "needs a branch with a kernel; found identity"),
        ("y=average3x3+norm(identity)", "needs a branch with a kernel"),
        ("y=identity(conv3x3)", "expected the end at character 10"),
        ("y=norm[epsilon=0.001](conv3x3)", r"expected ',' or '\]' at character 16"),
        ("y=norm[epsilon=1e-5](conv3x3)", "not in its normal form 'y=norm.conv3x3.'"),
        ("y=conv3x3+conv3x3", r"not in its normal form 'y=2\*conv3x3'"),
        ("y=0*conv3x3", "at least one branch"),
        ("y=1*conv3x3", "not in its normal form 'y=conv3x3'"),
        ("y=conv3x3[dilation=1]", "not in its normal form 'y=conv3x3'"),
        ("y=conv3x3 + identity", "expected the end at character 9"),
    ],
)
def test_errors_name_the_place_and_what_was_expected(name: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        parse(name)
    assert repr(name) in str(caught.value)
