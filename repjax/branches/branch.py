"""What every branch of a block is: how it runs, what it folds to, how it takes a kernel back."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import jax
from jax.nn.initializers import ones, zeros

from repjax.algebra import Conv, NotFusableError
from repjax.algebra.geometry import Axis

Leaves = Mapping[str, Any]
LeafPath = tuple[str, ...]
Initializer = jax.nn.initializers.Initializer


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Where a branch sits: the geometry its block gives it when it runs on data.

    Args:
        strides: of the branch, per axis.
        padding: (low, high) per axis that a single tap at the origin would need; a kernel
            adds its own taps before and after the origin to it.
        dilation: of the block, per axis; a branch multiplies its own into it.
        groups: channel groups of every convolution of the block.
        features: output channels.
        border: (low, high) per axis: outermost outputs that exist only to be read by a
            following kernel, and are left out of batch statistics.
    """

    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int
    features: int
    border: tuple[tuple[int, int], ...]


@dataclasses.dataclass(frozen=True)
class Request:
    """What a branch asks of its scope for one array.

    Args:
        shape: of the array.
        init: how it is initialized; None leaves it to the block.
        fixed: whether it is never trained, and so no parameter.
    """

    shape: tuple[int, ...]
    init: Initializer | None = None
    fixed: bool = False


@dataclasses.dataclass(frozen=True)
class NormRequest:
    """What a branch asks of its scope for a batch norm.

    Args:
        epsilon: added to the variance.
        scale: whether it has a trained scale.
        bias: whether it has a trained bias.
        scale_init: how the scale is initialized; None leaves it to the block.
    """

    epsilon: float
    scale: bool
    bias: bool
    scale_init: Initializer | None = None

    def arrays(self, features: int) -> dict[str, Request]:
        """Its arrays, for that many channels."""
        inits = {"scale": self.scale_init} if self.scale else {}
        inits |= {"bias": zeros} if self.bias else {}
        inits |= {"mean": zeros, "var": ones}
        return {name: Request((features,), init) for name, init in inits.items()}


class Scope(Protocol):
    """What a branch needs from the framework it runs in: leaves, norms and child branches."""

    precision: Any

    def leaf(self, name: str, request: Request) -> jax.Array:
        """The array of that name, created on initialization."""

    def gather(self, requests: Mapping[str, Any]) -> dict[str, Any]:
        """Several leaves at once; a mapping inside stands for the node of that name."""

    def promote(self, *arrays: jax.Array | None) -> tuple[Any, ...]:
        """Arrays in the compute type."""

    def normalize(self, x: jax.Array, norm: NormRequest, mask: jax.Array | None) -> jax.Array:
        """Batch norm under the name `norm`; statistics of the masked positions only."""

    def run(self, branch: Branch, name: str, x: jax.Array, geometry: Geometry) -> jax.Array:
        """Another branch, in the node of that name."""


@dataclasses.dataclass(frozen=True)
class LeafShape:
    """The expected shape of one array of a branch.

    Args:
        kernel_size: taps per axis of a kernel; None stands for a vector, one entry per channel.
    """

    kernel_size: tuple[int, ...] | None = None


class Branch(abc.ABC):
    """A frozen description of one branch.

    Descriptions are values: two of the same content are equal. `fold` and the methods
    beside it work on a *resolved* branch, whose sizes are tuples (`resolve`). Folding uses
    unit geometry: stride 1, and padding such that the tap of the identity sits at the
    output position, so that branches align however the block is strided or padded.
    """

    @abc.abstractmethod
    def resolve(self, dims: int, *, use_bias: bool) -> Branch:
        """This branch with every default written out.

        Raises:
            ValueError: the class does not accept its arguments or a branch inside.
        """

    @property
    @abc.abstractmethod
    def label(self) -> str:
        """Name of its node in the tree, unless a sibling has it too."""

    @abc.abstractmethod
    def formula(self) -> str:
        """What it computes, in the grammar of `repjax.branches.grammar`."""

    @property
    def compound(self) -> bool:
        """Whether its formula needs parentheses inside a sum."""
        return False

    @property
    def dims(self) -> int | None:
        """Number of spatial axes, None where the branch fits any."""
        return next((child.dims for child in self.children() if child.dims is not None), None)

    def children(self) -> tuple[Branch, ...]:
        """The branches it is made of."""
        return ()

    def walk(self) -> Iterator[Branch]:
        """Itself and everything it is made of."""
        yield self
        for child in self.children():
            yield from child.walk()

    @property
    @abc.abstractmethod
    def has_bias(self) -> bool:
        """Whether its fold has a bias."""

    @abc.abstractmethod
    def axes(self, dims: int) -> tuple[Axis, ...]:
        """The taps of its fold, in unit geometry."""

    @abc.abstractmethod
    def leaves(self) -> dict[LeafPath, LeafShape]:
        """The path of each of its arrays, and the shape expected there."""

    @abc.abstractmethod
    def inputs(self, leaves: Leaves, groups: int) -> int | None:
        """Input channels that its arrays imply for a number of groups; None where they do not."""

    @abc.abstractmethod
    def channels(
        self, leaves: Leaves, inputs: int, groups: int, problems: list[tuple[LeafPath, str]]
    ) -> int:
        """Output channels; arrays that do not fit the input channels are added to `problems`."""

    @abc.abstractmethod
    def outputs(self, inputs: int, features: int) -> int:
        """Output channels in a block of that many input channels that asks for `features`.

        Raises:
            ValueError: parts of a sum disagree.
        """

    @abc.abstractmethod
    def apply(self, scope: Scope, x: jax.Array, geometry: Geometry) -> jax.Array:
        """Run on data (batch..., spatial..., in)."""

    @abc.abstractmethod
    def fold(self, leaves: Leaves, inputs: int, groups: int, dims: int) -> Conv:
        """The one convolution it is in inference, in unit geometry."""

    def can_absorb(self, axes: tuple[Axis, ...], *, bias: bool) -> bool:
        """Whether `absorb` works for a target with those taps, and with a bias or without."""
        return False

    def absorb(self, target: Conv, leaves: Leaves, inputs: int, groups: int) -> dict[str, Any]:
        """New values of the leaves that must change for it to fold to `target`.

        A target without a bias asks for the kernel alone; the caller then corrects its bias.

        Raises:
            NotFusableError: no such leaves exist.
        """
        raise NotFusableError(f"{self.formula()} cannot absorb a kernel")


def placed(conv: Conv, geometry: Geometry) -> Conv:
    """A convolution in unit geometry, moved to where its block runs it."""
    pairs = zip(geometry.padding, conv.padding, geometry.dilation, strict=True)
    dilation = zip(conv.dilation, geometry.dilation, strict=True)
    return conv.replace(
        strides=geometry.strides,
        padding=[(low + a * d, high + b * d) for (low, high), (a, b), d in pairs],
        dilation=[a * b for a, b in dilation],
    )


def get(leaves: Leaves, *path: str) -> Any:
    """The leaf or node at a path, None where there is none."""
    node: Any = leaves
    for name in path:
        if not isinstance(node, Mapping) or name not in node:
            return None
        node = node[name]
    return node
