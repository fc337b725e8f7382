"""The input itself, and what it shares with a pool: no arrays, as many channels out as in."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from repjax import algebra
from repjax.algebra import Conv
from repjax.algebra.geometry import Axis
from repjax.branches.branch import Branch, Geometry, LeafPath, LeafShape, Leaves, Scope


class ChannelPreserving(Branch):
    """What identity and pool share: no arrays, as many channels out as in."""

    has_bias = False

    def leaves(self) -> dict[LeafPath, LeafShape]:
        """Nothing."""
        return {}

    def inputs(self, leaves: Leaves, groups: int) -> int | None:
        """Unknown: there are no arrays."""
        return None

    def channels(
        self, leaves: Leaves, inputs: int, groups: int, problems: list[tuple[LeafPath, str]]
    ) -> int:
        """As many as come in."""
        return inputs

    def outputs(self, inputs: int, features: int) -> int:
        """As many as come in."""
        return inputs


@dataclasses.dataclass(frozen=True)
class Identity(ChannelPreserving):
    """The input itself; ``Scale(Identity())`` has a trained scale.

    Args:
        optional: left out, instead of refused, where shapes do not allow it (strides, or
            another number of channels).

    Raises:
        ValueError: it runs with strides, unless `optional`.

    Source: Ding et al., RepVGG, CVPR 2021.

    Example:
        >>> Identity().formula()
        'identity'
    """

    optional: bool = False
    label = "identity"

    def resolve(self, dims: int, *, use_bias: bool) -> Identity:
        """The identity, no longer optional."""
        return Identity()

    def formula(self) -> str:
        """What it computes, in the grammar of names."""
        return "identity"

    def axes(self, dims: int) -> tuple[Axis, ...]:
        """One tap."""
        return (Axis(1),) * dims

    def apply(self, scope: Scope, x: jax.Array, geometry: Geometry) -> jax.Array:
        """The input, cropped or zero padded to where its block reads."""
        if set(geometry.strides) != {1}:
            raise ValueError(
                f"an identity branch needs strides of 1, found {geometry.strides}; leave it "
                "out, or make it Identity(optional=True)"
            )
        return padded(x, geometry.padding)

    def fold(self, leaves: Leaves, inputs: int, groups: int, dims: int) -> Conv:
        """One tap of ones per channel."""
        return algebra.identity(inputs, dims=dims)


def padded(x: jax.Array, padding: Sequence[tuple[int, int]]) -> jax.Array:
    """Data with zeros around it, or cropped where a number is negative."""
    if not any(low or high for low, high in padding):
        return x
    lead = [(0, 0, 0)] * (x.ndim - len(padding) - 1)
    config = [*lead, *((low, high, 0) for low, high in padding), (0, 0, 0)]
    return lax.pad(x, jnp.zeros((), x.dtype), config)
