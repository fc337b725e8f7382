"""Arguments made from few stored numbers, and what a program gives on them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from repjax._dependence import comparable
from repjax.compiling.tolerance import Array, Expected, compare, expect, outputs_of

POOL = 256
"""Numbers kept of each array; a byte picks one."""

KEPT = 1024
"""Elements compared of each output."""

SLACK = 2.0
"""How many times what is allowed between candidates: other machines sum in other orders."""


@dataclasses.dataclass(frozen=True)
class Probe:
    """Random arguments that are much like those that a program was compiled with.

    Every array is drawn from 256 of its own values, so that variances stay positive, labels
    in their range, and outputs of a size that says something. The bytes that pick them are
    those of PCG64, which NumPy keeps the same for good.

    Args:
        pools: the values, one array per argument array; of a PRNG key, its data.
        keys: of a PRNG key, its implementation; empty otherwise.
        roundoff: unit roundoff of the coarsest type in the program.
    """

    pools: tuple[Array, ...]
    keys: tuple[str, ...]
    roundoff: float

    @classmethod
    def like(cls, arrays: Sequence[Any], roundoff: float) -> Probe:
        """The probe for a program with these argument arrays."""
        pools = tuple(_some(comparable(array), POOL) for array in arrays)
        return cls(pools, tuple(map(_key_of, arrays)), roundoff)

    def arguments(self, specs: Any) -> Any:
        """The arguments: a pytree like `specs`, whose leaves have shapes and types."""
        leaves, treedef = jax.tree.flatten(specs)
        drawn = [
            _drawn(pool, key, spec, seed)
            for seed, (pool, key, spec) in enumerate(
                zip(self.pools, self.keys, leaves, strict=True)
            )
        ]
        return jax.tree.unflatten(treedef, drawn)

    def expected(self, run: Callable[..., Any], specs: Any) -> list[Expected]:
        """What a program gives on them, with tolerances, at some elements of each output."""
        found = expect(run, self.arguments(specs), self.roundoff)
        return [dataclasses.replace(one, **_sampled(one)) for one in found]

    def problem(
        self, run: Callable[..., Any], specs: Any, expected: Sequence[Expected]
    ) -> str | None:
        """In which way a program gives something else than expected, or None."""
        found = outputs_of(run(*self.arguments(specs)))
        return compare(expected, [_some(output, KEPT) for output in found])


def _key_of(array: Any) -> str:
    is_key = jnp.issubdtype(array.dtype, jax.dtypes.prng_key)
    return str(jax.random.key_impl(array)) if is_key else ""


def _drawn(pool: Array, key: str, spec: Any, seed: int) -> Any:
    if not key:
        return jnp.asarray(_picked(pool, spec.shape, seed), spec.dtype)
    data = jax.eval_shape(jax.random.key_data, spec)
    words = jnp.asarray(_picked(pool, data.shape, seed), data.dtype)
    return jax.random.wrap_key_data(words, impl=key)


def _picked(pool: Array, shape: tuple[int, ...], seed: int) -> Array:
    size = math.prod(shape)
    if not size:
        return np.zeros(shape, pool.dtype)
    raw = np.random.PCG64(seed).random_raw(-(-size // 8))
    bytes_ = np.asarray(raw, "<u8").view(np.uint8)[:size]
    picked: Array = pool[bytes_.astype(int) % len(pool)]
    return picked.reshape(shape)


def _some(array: Array, number: int) -> Array:
    flat: Array = array.reshape(-1)
    places = np.linspace(0, flat.size - 1, number).astype(int)
    return flat if flat.size <= number else flat[places]


def _sampled(one: Expected) -> dict[str, Any]:
    return {
        "value": _some(one.value, KEPT),
        "bound": None if one.bound is None else SLACK * _some(one.bound, KEPT),
        "ties": np.stack([_some(tie, KEPT) for tie in one.ties])
        if len(one.ties)
        else one.ties.reshape(0, min(one.value.size, KEPT)),
    }
