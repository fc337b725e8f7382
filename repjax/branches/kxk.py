"""The branches with a kernel of their own: KxK, and its one-tap case Pointwise."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from repjax.algebra import Conv
from repjax.algebra.geometry import Axis
from repjax.algebra.padding import per_axis
from repjax.branches.branch import Branch, Geometry, Leaf, Leaves, Path, Scope, get

Sizes = int | Sequence[int]


@dataclasses.dataclass(frozen=True)
class KxK(Branch):
    """A convolution with its own kernel; ``KxK((1, 3))`` is an asymmetric one.

    Args:
        kernel_size: taps, one number for all axes or one per axis.
        dilation: distance between its taps, in taps of the block.
        tap: the tap that meets the identity, per axis; ``(size - 1) // 2`` by default, the
            centre of an odd size.
        bias: whether it has one; None leaves it to the block's `use_bias`.

    Source: Ding et al., RepVGG, CVPR 2021; asymmetric: Ding et al., ACNet, ICCV 2019;
    dilated: Ding et al., UniRepLKNet, CVPR 2024.

    Example:
        >>> KxK(3, dilation=2).resolve(2, use_bias=True).formula()
        'conv3x3[bias,dilation=2]'
    """

    kernel_size: Sizes
    dilation: Sizes = 1
    tap: Sizes | None = None
    bias: bool | None = None

    def resolve(self, dims: int, *, use_bias: bool) -> KxK:
        """This branch with every default written out."""
        size = per_axis(self.kernel_size, dims, "kernel_size")
        tap = default_tap(size) if self.tap is None else per_axis(self.tap, dims, "tap")
        if any(not 0 <= t < k for t, k in zip(tap, size, strict=True)):
            raise ValueError(f"tap {tap} lies outside a kernel of size {size}")
        return dataclasses.replace(
            self,
            kernel_size=size,
            dilation=per_axis(self.dilation, dims, "dilation"),
            tap=tap,
            bias=use_bias if self.bias is None else self.bias,
        )

    @property
    def label(self) -> str:
        """Name of its node: kind, size, and dilation where there is one."""
        dilated = [] if set(self._dilation) == {1} else [f"_dilation{join_or_one(self._dilation)}"]
        return "".join([f"conv{join(self._size)}", *dilated])

    def formula(self) -> str:
        """What it computes, in the grammar of names."""
        attributes = ["bias"] if self.bias else []
        if set(self._dilation) != {1}:
            attributes.append(f"dilation={join_or_one(self._dilation)}")
        if self._tap != default_tap(self._size):
            attributes.append(f"tap={join_or_one(self._tap)}")
        suffix = f"[{','.join(attributes)}]" if attributes else ""
        return f"conv{join(self._size)}{suffix}"

    @property
    def _size(self) -> tuple[int, ...]:
        assert isinstance(self.kernel_size, tuple), "resolve the branch first"
        return self.kernel_size

    @property
    def _dilation(self) -> tuple[int, ...]:
        assert isinstance(self.dilation, tuple), "resolve the branch first"
        return self.dilation

    @property
    def _tap(self) -> tuple[int, ...]:
        assert isinstance(self.tap, tuple), "resolve the branch first"
        return self.tap

    @property
    def dims(self) -> int:
        """Number of spatial axes."""
        return len(self._size)

    @property
    def has_bias(self) -> bool:
        """Whether it has a bias."""
        return bool(self.bias)

    def axes(self, dims: int) -> tuple[Axis, ...]:
        """Its taps around the one that meets the identity."""
        return tuple(
            Axis(size, 1, tap * step, (size - 1 - tap) * step, step)
            for size, tap, step in zip(self._size, self._tap, self._dilation, strict=True)
        )

    def leaves(self) -> dict[Path, Leaf]:
        """A kernel, and a bias where it has one."""
        return {("kernel",): Leaf(self._size), **({("bias",): Leaf()} if self.bias else {})}

    def channels(
        self, leaves: Leaves, inputs: int, groups: int, problems: list[tuple[Path, str]]
    ) -> int:
        """Output channels of the kernel."""
        *_, found, features = get(leaves, "kernel").shape
        if found * groups != inputs or features % groups:
            problems.append(
                (
                    ("kernel",),
                    f"maps {found} x {groups} groups to {features} channels, expected {inputs} "
                    "input channels",
                )
            )
        if self.bias and get(leaves, "bias").shape != (features,):
            problems.append(
                (("bias",), f"has shape {get(leaves, 'bias').shape}, expected ({features},)")
            )
        return int(features)

    def apply(self, scope: Scope, x: jax.Array, geometry: Geometry) -> jax.Array:
        """One convolution."""
        shape = (*self._size, x.shape[-1] // geometry.groups, geometry.features)
        kernel = scope.leaf("kernel", shape)
        bias = scope.leaf("bias", (geometry.features,)) if self.bias else None
        x, kernel, bias = scope.promote(x, kernel, bias)
        axes = zip(self.axes(self.dims), geometry.padding, geometry.dilation, strict=True)
        padding = [(lo + axis.low * d, hi + axis.high * d) for axis, (lo, hi), d in axes]
        dilation = [a * b for a, b in zip(self._dilation, geometry.dilation, strict=True)]
        conv = Conv(
            kernel,
            bias,
            strides=geometry.strides,
            padding=padding,
            dilation=dilation,
            groups=geometry.groups,
        )
        return conv(x, precision=scope.precision)

    def fold(self, leaves: Leaves, inputs: int, groups: int, dims: int) -> Conv:
        """The convolution itself."""
        return Conv(
            get(leaves, "kernel"),
            get(leaves, "bias") if self.bias else None,
            padding=[(axis.low, axis.high) for axis in self.axes(dims)],
            dilation=self._dilation,
            groups=groups,
        )

    def can_absorb(self, axes: tuple[Axis, ...], *, bias: bool) -> bool:
        """Whether the target's taps are its own, and it has a bias where one is needed."""
        own = [(axis.taps, axis.low, axis.step) for axis in self.axes(self.dims)]
        wanted = [(axis.taps, axis.low, axis.step) for axis in axes]
        return own == wanted and (self.bias or not bias)

    def absorb(self, target: Conv, leaves: Leaves, inputs: int, groups: int) -> dict[str, Any]:
        """Take the target as kernel and bias."""
        kernel = target.kernel.astype(get(leaves, "kernel").dtype)
        if not self.bias:
            return {"kernel": kernel}
        old = get(leaves, "bias")
        bias = jnp.zeros_like(old) if target.bias is None else target.bias.astype(old.dtype)
        return {"kernel": kernel, "bias": bias}


@dataclasses.dataclass(frozen=True)
class Pointwise(KxK):
    """A convolution of one tap: ``KxK(1)`` by the name the field gives it.

    Args:
        bias: whether it has one; None leaves it to the block's `use_bias`.

    Source: Ding et al., RepVGG, CVPR 2021.

    Example:
        >>> Pointwise().resolve(2, use_bias=False).formula()
        'conv1x1'
    """

    kernel_size: Sizes = dataclasses.field(default=1, init=False)
    dilation: Sizes = dataclasses.field(default=1, init=False)
    tap: Sizes | None = dataclasses.field(default=None, init=False)

    def resolve(self, dims: int, *, use_bias: bool) -> KxK:
        """The `KxK` it stands for."""
        return KxK(1, bias=self.bias).resolve(dims, use_bias=use_bias)


def default_tap(size: Sequence[int]) -> tuple[int, ...]:
    """The tap that meets the identity unless one is given."""
    return tuple((taps - 1) // 2 for taps in size)


def join(numbers: Sequence[int]) -> str:
    """Numbers as they appear in names: 3x3."""
    return "x".join(map(str, numbers))


def join_or_one(numbers: Sequence[int]) -> str:
    """Numbers as they appear in names, one where all are equal."""
    return str(numbers[0]) if len(set(numbers)) == 1 else join(numbers)
