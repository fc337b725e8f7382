"""Norms and scales that an official deploy form keeps and ours does not: folded when read."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from repjax.torch.arrays import as_numpy

NORM = ("weight", "bias", "running_mean", "running_var")
Pair = tuple[np.ndarray, np.ndarray | None]


class FoldError(ValueError):
    """A norm or a scale that does not fit the map it should be folded into."""


class Folded(Mapping[str, Any]):
    """A state dict without some norms and scales; what they change is computed when asked for.

    In NumPy and float64, so that nothing is rounded before the model's type is known, and
    nothing is read for a form that does not fit.

    Args:
        state: names to arrays.

    Example:
        >>> ones = {f"bn.{leaf}": np.ones(2) for leaf in NORM}
        >>> state = Folded({"conv.weight": np.ones((2, 3, 1, 1)), **ones})
        >>> state.norm_behind("conv", "bn", epsilon=3.0)
        >>> list(state), state["conv.bias"]
        (['conv.weight', 'conv.bias'], array([0.5, 0.5]))
    """

    def __init__(self, state: Mapping[str, Any]) -> None:
        self._arrays: dict[str, Callable[[], Any]] = {
            name: functools.partial(state.__getitem__, name) for name in state
        }

    def __getitem__(self, name: str) -> Any:
        return self._arrays[name]()

    def __contains__(self, name: object) -> bool:
        return name in self._arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def norm_behind(self, conv: str, norm: str, epsilon: float) -> None:
        """Fold a batch norm into the convolution or linear map in front of it."""

        def fold(kernel: np.ndarray, bias: np.ndarray | None, arrays: list[np.ndarray]) -> Pair:
            scale, shift = _affine(norm, arrays, epsilon)
            folded = _fitting(norm, scale, kernel.shape[0]) * (0.0 if bias is None else bias)
            return _outputs(kernel, scale), folded + shift

        self._fold(conv, [f"{norm}.{leaf}" for leaf in NORM], fold, biased=True)

    def norm_in_front(self, conv: str, norm: str, epsilon: float) -> None:
        """Fold a batch norm into the pointwise convolution or linear map behind it.

        Where the kernel has more than one tap, reading it raises a `FoldError`.
        """

        def fold(kernel: np.ndarray, bias: np.ndarray | None, arrays: list[np.ndarray]) -> Pair:
            scale, shift = _affine(norm, arrays, epsilon)
            if kernel[0, 0].size != 1:
                raise FoldError(f"{norm}: stands before {conv}, whose kernel is {kernel.shape}")
            matrix = kernel.reshape(kernel.shape[:2])
            added = matrix @ _fitting(norm, shift, kernel.shape[1])
            folded = (matrix * scale).reshape(kernel.shape)
            return folded, added if bias is None else bias + added

        self._fold(conv, [f"{norm}.{leaf}" for leaf in NORM], fold, biased=True)

    def scale_behind(self, conv: str, scale: str) -> None:
        """Fold a factor of each channel into the convolution or linear map in front of it."""

        def fold(kernel: np.ndarray, bias: np.ndarray | None, arrays: list[np.ndarray]) -> Pair:
            factors = _fitting(scale, arrays[0].ravel(), kernel.shape[0])
            return _outputs(kernel, factors), None if bias is None else bias * factors

        self._fold(conv, [scale], fold, biased=f"{conv}.bias" in self)

    def _fold(
        self,
        conv: str,
        names: Sequence[str],
        fold: Callable[[np.ndarray, np.ndarray | None, list[np.ndarray]], Pair],
        *,
        biased: bool,
    ) -> None:
        weight, bias = f"{conv}.weight", f"{conv}.bias"
        before = self._arrays[weight], self._arrays.get(bias)
        arrays = [self._arrays.pop(name) for name in names]

        def folded(which: int) -> np.ndarray | None:
            kernel = _wide(before[0])
            vector = None if before[1] is None else _wide(before[1])
            return fold(kernel, vector, [_wide(array) for array in arrays])[which]

        self._arrays[weight] = functools.partial(folded, 0)
        if biased:
            self._arrays[bias] = functools.partial(folded, 1)


def _wide(array: Callable[[], Any]) -> np.ndarray:
    return as_numpy(array()).astype(np.float64)


def _affine(
    norm: str, arrays: Sequence[np.ndarray], epsilon: float
) -> tuple[np.ndarray, np.ndarray]:
    """The factor and the shift of each channel."""
    weight, bias, mean, variance = arrays
    if len({array.shape for array in arrays}) > 1:
        shapes = ", ".join(str(array.shape) for array in arrays)
        raise FoldError(f"{norm}: its arrays have the shapes {shapes}, expected one shape")
    if (variance < 0).any():
        raise FoldError(f"{norm}.running_var: has negative numbers")
    scale = weight / np.sqrt(variance + epsilon)
    return scale, bias - scale * mean


def _fitting(name: str, vector: np.ndarray, channels: int) -> np.ndarray:
    if vector.shape != (channels,):
        raise FoldError(f"{name}: has shape {vector.shape}, expected {(channels,)}")
    return vector


def _outputs(kernel: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """A kernel (out, ...) with a factor for each output."""
    folded: np.ndarray = kernel * factors.reshape(-1, *(1,) * (kernel.ndim - 1))
    return folded
