"""A network of somebody else's making: it knows nothing of branches, and has no deploy twin."""

from __future__ import annotations

import flax.linen as nn
import jax


class Theirs(nn.Module):
    """Two convolutions with norms, a mean, a linear map."""

    classes: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        for number, features in enumerate((4, 6)):
            x = nn.Conv(features, (3, 3), use_bias=False, name=f"conv{number}")(x)
            norm = nn.BatchNorm(not train, momentum=0.8, name=f"norm{number}")
            x = nn.relu(norm(x))
        return nn.Dense(self.classes, name="head")(x.mean((1, 2)))


def theirs(classes: int) -> Theirs:
    """The network, for a number of classes."""
    return Theirs(classes)


number = 3
