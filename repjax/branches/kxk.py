"""The branches with a trained kernel: KxK, its one-tap case Pointwise, and Depthwise."""

from __future__ import annotations

import dataclasses
from typing import Any

from repjax.algebra import Conv
from repjax.algebra.geometry import Axis
from repjax.branches.branch import Initializer, Leaves, get
from repjax.branches.convolution import (
    Convolution,
    Sizes,
    axis_numbers,
    default_tap,
    is_whole,
    require_taps,
)


class _Trained(Convolution):
    """What the trained kernels share: size, dilation and tap are arguments."""

    kernel_size: Sizes
    dilation: Sizes
    tap: Sizes | None
    bias: bool | None

    def _defaults(self, dims: int, use_bias: bool) -> dict[str, Any]:
        size = axis_numbers(self.kernel_size, dims, "kernel_size")
        tap = default_tap(size) if self.tap is None else axis_numbers(self.tap, dims, "tap")
        require_taps(size, tap)
        dilation = axis_numbers(self.dilation, dims, "dilation")
        if min(dilation, default=1) < 1:
            raise ValueError(f"dilation {dilation}, expected at least 1 on every axis")
        return {
            "kernel_size": size,
            "dilation": dilation,
            "tap": tap,
            "bias": use_bias if self.bias is None else self.bias,
        }

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
    def has_bias(self) -> bool:
        """Whether it has a bias."""
        return bool(self.bias)


@dataclasses.dataclass(frozen=True)
class KxK(_Trained):
    """A convolution with its own kernel; ``KxK((1, 3))`` is an asymmetric one.

    Args:
        kernel_size: taps, one number for all axes or one per axis.
        dilation: distance between its taps, in taps of the block.
        tap: the tap that meets the identity, per axis; ``(size - 1) // 2`` by default, the
            center of an odd size.
        bias: whether it has one; None leaves it to the block's `use_bias`.
        kernel_init: initializer of its kernel; None leaves it to the block.
        bias_init: initializer of its bias; None leaves it to the block.

    Raises:
        ValueError: size, dilation or tap are no whole numbers, one for all axes or one per
            axis, a size or dilation is below 1, or the tap lies outside the kernel.

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
    kernel_init: Initializer | None = dataclasses.field(default=None, compare=False)
    bias_init: Initializer | None = dataclasses.field(default=None, compare=False)

    kind = "conv"

    def resolve(self, dims: int, *, use_bias: bool) -> KxK:
        """This branch with every default written out."""
        return dataclasses.replace(self, **self._defaults(dims, use_bias))

    def can_absorb(self, axes: tuple[Axis, ...], *, bias: bool) -> bool:
        """Whether the target's taps are its own, and it has a bias where one is needed."""
        own = [(axis.taps, axis.low, axis.step) for axis in self.axes(self.dims)]
        wanted = [(axis.taps, axis.low, axis.step) for axis in axes]
        return own == wanted and (self.has_bias or not bias)

    def absorb(self, target: Conv, leaves: Leaves, inputs: int, groups: int) -> dict[str, Any]:
        """Take the target as kernel and bias."""
        new = {"kernel": target.kernel.astype(get(leaves, "kernel").dtype)}
        if target.bias is not None:
            new["bias"] = target.bias.astype(get(leaves, "bias").dtype)
        return new


@dataclasses.dataclass(frozen=True)
class Pointwise(KxK):
    """A convolution of one tap: ``KxK(1)`` by the name the field gives it.

    Args:
        bias: whether it has one; None leaves it to the block's `use_bias`.
        kernel_init: initializer of its kernel; None leaves it to the block.
        bias_init: initializer of its bias; None leaves it to the block.

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
        plain = KxK(1, bias=self.bias, kernel_init=self.kernel_init, bias_init=self.bias_init)
        return plain.resolve(dims, use_bias=use_bias)


@dataclasses.dataclass(frozen=True)
class Depthwise(_Trained):
    """A convolution of every input channel by itself, in a block that mixes channels.

    Args:
        kernel_size: as of `KxK`.
        multiplier: output channels per input channel.
        dilation: as of `KxK`.
        tap: as of `KxK`.
        bias: as of `KxK`.
        kernel_init: as of `KxK`.
        bias_init: as of `KxK`.

    Raises:
        ValueError: as of `KxK`, or the multiplier is no whole number, at least 1.

    Source: Howard et al., MobileNets, 2017; before a pointwise convolution: Hu et al., Online
    Convolutional Re-parameterization, CVPR 2022.

    Example:
        >>> Depthwise(3, multiplier=8).resolve(2, use_bias=False).formula()
        'depthwise3x3[multiplier=8]'
    """

    kernel_size: Sizes
    multiplier: int = 1
    dilation: Sizes = 1
    tap: Sizes | None = None
    bias: bool | None = None
    kernel_init: Initializer | None = dataclasses.field(default=None, compare=False)
    bias_init: Initializer | None = dataclasses.field(default=None, compare=False)

    kind = "depthwise"

    def resolve(self, dims: int, *, use_bias: bool) -> Depthwise:
        """This branch with every default written out."""
        if not is_whole(self.multiplier) or self.multiplier < 1:
            raise ValueError(f"multiplier is a whole number, at least 1; found {self.multiplier}")
        return dataclasses.replace(self, **self._defaults(dims, use_bias))

    def _attributes(self) -> list[str]:
        own = [f"multiplier={self.multiplier}"] if self.multiplier > 1 else []
        return super()._attributes() + own

    def _groups(self, inputs: int, groups: int) -> int:
        return inputs

    def _features(self, inputs: int, features: int) -> int:
        return inputs * self.multiplier

    def inputs(self, leaves: Leaves, groups: int) -> int | None:
        """One for every `multiplier` outputs."""
        return int(get(leaves, "kernel").shape[-1]) // self.multiplier
