"""Names are a file format: what any version wrote is read, and paths fit into file names."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import repjax
from repjax import blocks
from repjax.blocks import KxK, Norm, RepConv
from repjax.branches import equation, parse
from repjax.branches.short import written_out
from tests.blocks.cases import cast, identical, random_variables, same
from tests.branches.written_names import NAMES, OLD
from tests.models.test_round_trips import NETWORKS, network

X = jax.ShapeDtypeStruct((1, 16, 16, 4), jnp.float32)
BLOCKS: list[Any] = [
    blocks.ResidualConv(4),
    blocks.RepVGGBlock(4),
    blocks.MobileOneBlock(4, copies=4),
    blocks.QARepVGGBlock(4, average=True, epsilon=1e-3),
    blocks.YOLORepConv(4),
    blocks.ACBlock(4, affine=False),
    blocks.DiverseBranchBlock(4),
    blocks.OREPABlock(4),
    blocks.OREPALargeBlock(4),
    blocks.OREPARepVGGBlock(4),
    blocks.OREPAPointwiseBlock(4),
    blocks.ECB(4, identity=True),
    blocks.DilatedReparamBlock(17),
]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_today_are_read_as_they_are(name: str) -> None:
    assert equation(parse(name)) == name
    assert parse(written_out(name)) == parse(name)


@pytest.mark.parametrize("name", OLD, ids=OLD.get)
def test_old_names_are_read(name: str) -> None:
    assert equation(parse(name)) == OLD[name]
    assert written_out(OLD[name]) == name


def test_the_table_holds_what_blocks_and_networks_write() -> None:
    modules = [(block, X) for block in BLOCKS]
    for family in NETWORKS:
        model, channels = network(family)
        modules.append((model, jax.ShapeDtypeStruct((1, 32, 32, channels), jnp.float32)))
    for module, x in modules:
        shapes = jax.eval_shape(module.init, jax.random.key(0), x)
        for path, _ in jax.tree.leaves_with_path(shapes):
            keys = [key.key for key in path]
            assert len(".".join(keys)) <= 240
            names = {written(key) for key in keys if key.startswith("y=")}
            assert names <= set(map(written, NAMES)), names


def written(name: str) -> str:
    """A name without the sizes and counts that configurations choose."""
    return "".join("#" if character.isdigit() else character for character in name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("y=orepa3", "expected a size of two axes"),
        ("y=orepa3x3[pointwise=yes]", "pointwise=no is the one attribute"),
        ("y=orepa3x3[bias]", "attribute 'bias', expected one of"),
        ("y=(orepa3x3)", "not in its normal form 'y=orepa3x3'"),
    ],
)
def test_short_words_are_strict(name: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse(name)


def test_trees_with_old_names_fuse_and_are_renamed() -> None:
    block = blocks.OREPARepVGGBlock(4)
    variables = cast(random_variables(block, np.zeros((1, 6, 6, 4))), np.float32)
    (today,) = variables["params"]["conv"]
    old = {
        collection: {"conv": {written_out(today): tree["conv"][today]}}
        for collection, tree in variables.items()
    }
    assert same(repjax.fuse_params(old), repjax.fuse_params(variables), 0)
    renamed = repjax.rename_params(old)
    assert renamed.keys() == variables.keys()
    assert identical(renamed, variables)
    assert identical(repjax.rename_params(variables), variables)
    with pytest.raises(ValueError, match=r"conv: this block is .*rename_params\(variables\)"):
        jax.eval_shape(block.apply, old, X)
    back = repjax.unfuse_params(repjax.fuse_params(variables), old)
    assert jax.tree.structure(back) == jax.tree.structure(old)


PAIR = (Norm(KxK(3)), Norm(KxK(5)))


class Deep(nn.Module):
    """A block in a module with a long name."""

    name_length: int

    @nn.compact
    def __call__(self, x: jax.Array) -> Any:
        block = RepConv(4, PAIR, norm=None, use_bias=False, name="n" * self.name_length)
        return block(x)


def test_a_longer_path_is_refused_when_the_block_is_created() -> None:
    # batch_stats.nnn.y=norm(conv3x3)+norm(conv5x5).conv3x3.norm.mean
    rest = len("batch_stats..y=norm(conv3x3)+norm(conv5x5).conv3x3.norm.mean")
    jax.eval_shape(Deep(240 - rest).init, jax.random.key(0), X)
    words = r"would have 241 characters, expected at most 240 .*\.conv3x3\.norm\.mean"
    with pytest.raises(ValueError, match=words):
        jax.eval_shape(Deep(241 - rest).init, jax.random.key(0), X)
