"""A small network of several kinds of blocks in modules of the user, with other layers between."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from repjax.blocks import KxK, Norm, Pointwise, RepConv, RepVGGBlock, ResidualConv, Sequence

REPVGG = "y=norm(conv3x3)+norm(conv1x1)+norm(identity)"
NARROWING = "y=norm[epsilon=1e-3](2*conv3x3[bias]+conv1x1[bias])"
CHAIN = "y=norm(conv3x3)+norm(conv3x3(norm(conv1x1)))"
RESIDUAL = "y=conv3x3[bias]+conv1x1[bias]+identity"


class Stage(nn.Module):
    """Two blocks, one of them with an epsilon of its own."""

    deployed: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = RepVGGBlock(4, deployed=self.deployed, name="first")(x, train)
        return RepConv(
            6,
            branches=(KxK(3), KxK(3), Pointwise()),
            norm="sum",
            use_bias=True,
            epsilon=1e-3,
            strides=2,
            deployed=self.deployed,
            name="narrowing",
        )(x, train)


class Network(nn.Module):
    """Blocks, a plain convolution with a batch norm of its own, a dense head."""

    deployed: bool = False

    def deploy(self) -> Network:
        return self.clone(deployed=True)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = nn.Conv(4, (3, 3), name="stem")(x)
        x = nn.BatchNorm(use_running_average=not train, name="stem_norm")(x)
        x = Stage(self.deployed, name="stage")(nn.relu(x), train)
        branches = (KxK(3), Sequence(Norm(Pointwise()), KxK(3)))
        x = RepConv(6, branches=branches, deployed=self.deployed, name="chain")(x, train)
        x = ResidualConv(6, deployed=self.deployed, name="residual")(nn.relu(x), train)
        return nn.Dense(3, name="head")(x.mean((-3, -2)))


PATHS = {
    "stage/first/conv": REPVGG,
    "stage/narrowing": NARROWING,
    "chain": CHAIN,
    "residual": RESIDUAL,
}
IMAGES = np.random.default_rng(5).normal(size=(2, 7, 8, 3))


def at(tree: Any, path: str) -> Any:
    """The node at a path like 'stage/first'."""
    for name in path.split("/"):
        tree = tree[name]
    return tree


def paths_of(tree: Any) -> set[str]:
    """The paths of all leaves of nested dicts."""
    leaves = jax.tree.leaves_with_path(tree)
    return {"/".join(str(key.key) for key in path) for path, _ in leaves}


def on_device(tree: Any, dtype: Any = jnp.float32) -> Any:
    """The leaves as JAX arrays of a type."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), tree)
