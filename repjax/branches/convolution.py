"""What the branches with a kernel share: taps around one that meets the identity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from repjax.algebra import Conv
from repjax.algebra.geometry import Axis
from repjax.algebra.padding import per_axis
from repjax.branches.branch import (
    Branch,
    Geometry,
    Initializer,
    LeafPath,
    LeafShape,
    Leaves,
    Request,
    Scope,
    get,
    placed,
)

Sizes = int | Sequence[int]


class Convolution(Branch):
    """One convolution. Subclasses say what its kernel is and how it splits channels."""

    kind: str
    array: str = "kernel"
    kernel_init: Initializer | None
    bias_init: Initializer | None

    @property
    def _size(self) -> tuple[int, ...]:
        """Taps per axis."""
        raise NotImplementedError

    @property
    def _dilation(self) -> tuple[int, ...]:
        """Distance between taps, per axis."""
        return (1,) * len(self._size)

    @property
    def _tap(self) -> tuple[int, ...]:
        """The tap that meets the identity, per axis."""
        return default_tap(self._size)

    def _groups(self, inputs: int, groups: int) -> int:
        """Its channel groups in a block of that many."""
        return groups

    def _features(self, inputs: int, features: int) -> int:
        """Its output channels where the block asks for that many."""
        return features

    def _attributes(self) -> list[str]:
        """What its formula says beyond kind and size."""
        attributes = ["bias"] if self.has_bias else []
        if set(self._dilation) != {1}:
            attributes.append(f"dilation={join_or_one(self._dilation)}")
        if self._tap != default_tap(self._size):
            attributes.append(f"tap={join_or_one(self._tap)}")
        return attributes

    @property
    def label(self) -> str:
        """Name of its node: kind, size, and dilation where there is one."""
        dilated = "" if set(self._dilation) == {1} else f"_dilation{join_or_one(self._dilation)}"
        return f"{self.kind}{join(self._size)}{dilated}"

    def formula(self) -> str:
        """What it computes, in the grammar of names."""
        attributes = self._attributes()
        suffix = f"[{','.join(attributes)}]" if attributes else ""
        return f"{self.kind}{join(self._size)}{suffix}"

    @property
    def dims(self) -> int:
        """Number of spatial axes."""
        return len(self._size)

    def axes(self, dims: int) -> tuple[Axis, ...]:
        """Its taps around the one that meets the identity."""
        return tuple(
            Axis(size, 1, tap * step, (size - 1 - tap) * step, step)
            for size, tap, step in zip(self._size, self._tap, self._dilation, strict=True)
        )

    def leaves(self) -> dict[LeafPath, LeafShape]:
        """A kernel, and a bias where it has one."""
        leaves: dict[LeafPath, LeafShape] = {(self.array,): LeafShape(self._size)}
        return leaves | {("bias",): LeafShape()} if self.has_bias else leaves

    def inputs(self, leaves: Leaves, groups: int) -> int | None:
        """As many as the kernel reads in all groups."""
        return int(get(leaves, self.array).shape[-2]) * groups

    def channels(
        self, leaves: Leaves, inputs: int, groups: int, problems: list[tuple[LeafPath, str]]
    ) -> int:
        """Output channels of the kernel."""
        *_, found, features = get(leaves, self.array).shape
        groups = self._groups(inputs, groups)
        if found * groups != inputs or features != self._features(
            inputs, features // groups * groups
        ):
            problems.append(
                (
                    (self.array,),
                    f"maps {found} x {groups} groups to {features} channels, expected {inputs} "
                    "input channels",
                )
            )
        if self.has_bias and get(leaves, "bias").shape != (features,):
            problems.append(
                (("bias",), f"has shape {get(leaves, 'bias').shape}, expected ({features},)")
            )
        return int(features)

    def outputs(self, inputs: int, features: int) -> int:
        """As many as asked for, unless its kernel decides."""
        return self._features(inputs, features)

    def apply(self, scope: Scope, x: jax.Array, geometry: Geometry) -> jax.Array:
        """One convolution."""
        inputs = x.shape[-1]
        groups = self._groups(inputs, geometry.groups)
        features = self._features(inputs, geometry.features)
        shape = (*self._size, inputs // groups, features)
        kernel = scope.leaf(self.array, self._request(shape))
        bias = scope.leaf("bias", Request((features,), self.bias_init)) if self.has_bias else None
        x, kernel, bias = scope.promote(x, kernel, bias)
        return placed(self._conv(kernel, bias, groups), geometry)(x, precision=scope.precision)

    def _request(self, shape: tuple[int, ...]) -> Request:
        return Request(shape, self.kernel_init)

    def fold(self, leaves: Leaves, inputs: int, groups: int, dims: int) -> Conv:
        """The convolution itself."""
        bias = get(leaves, "bias") if self.has_bias else None
        return self._conv(get(leaves, self.array), bias, self._groups(inputs, groups))

    def _conv(self, kernel: Any, bias: Any, groups: int) -> Conv:
        return Conv(
            kernel,
            bias,
            padding=[(axis.low, axis.high) for axis in self.axes(self.dims)],
            dilation=self._dilation,
            groups=groups,
        )


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number; booleans are not."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def axis_numbers(value: Any, dims: int, name: str) -> tuple[int, ...]:
    """One whole number per spatial axis, from one or a sequence of them.

    Raises:
        ValueError: an entry is no whole number, or there are not `dims` of them.
    """
    entries = [value] if is_whole(value) else value
    sequence = isinstance(entries, Sequence | np.ndarray) and not isinstance(entries, str)
    if not sequence or not all(is_whole(entry) for entry in entries):
        raise ValueError(f"{name} is a whole number, or one per axis; found {value!r}")
    return per_axis(value, dims, name)


def default_tap(size: Sequence[int]) -> tuple[int, ...]:
    """The tap that meets the identity unless one is given."""
    return tuple((taps - 1) // 2 for taps in size)


def require_taps(size: Sequence[int], tap: Sequence[int]) -> None:
    """Refuse a kernel without taps, or one that does not hold the tap of the identity.

    Raises:
        ValueError: of either.
    """
    if min(size, default=1) < 1:
        raise ValueError(f"a kernel of size {tuple(size)}, expected at least 1 tap on every axis")
    if any(not 0 <= t < k for t, k in zip(tap, size, strict=True)):
        raise ValueError(f"tap {tuple(tap)} lies outside a kernel of size {tuple(size)}")


def join(numbers: Sequence[int]) -> str:
    """Numbers as they appear in names: 3x3."""
    return "x".join(map(str, numbers))


def join_or_one(numbers: Sequence[int]) -> str:
    """Numbers as they appear in names, one where all are equal."""
    return str(numbers[0]) if len(set(numbers)) == 1 else join(numbers)
