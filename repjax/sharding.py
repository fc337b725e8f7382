"""Keeping shardings: results of a fold lie on the devices as the arrays they replace did."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec


def sharding_of(leaf: Any, shape: tuple[int, ...] | None = None) -> NamedSharding | None:
    """How a leaf is sharded; None where it has no `NamedSharding`.

    Args:
        leaf: an array, or a tracer (of which only explicit axes are known).
        shape: shape of the result, where it differs from the leaf's: its last axes match,
            and those of another length are not sharded.
    """
    sharding = jax.typeof(leaf).sharding
    if not _explicit(sharding):
        sharding = None if isinstance(leaf, jax.core.Tracer) else getattr(leaf, "sharding", None)
    if not isinstance(sharding, NamedSharding):
        return None
    if shape is None:
        return sharding
    spec = PartitionSpec(*aligned(sharding.spec, leaf.shape, shape))  # type: ignore[no-untyped-call]
    return NamedSharding(sharding.mesh, spec, memory_kind=sharding.memory_kind)


def aligned(names: Iterable[Any], old: tuple[int, ...], new: tuple[int, ...]) -> tuple[Any, ...]:
    """The names of an array's axes, for another array whose last axes are the same.

    Args:
        names: of the first axes, or of all.
        old: shape of the array they belong to.
        new: shape of the other; an axis of another length has no name.

    Example:
        >>> aligned(("rows", None, "columns"), (3, 3, 8), (4, 8))
        (None, 'columns')
    """
    known = tuple(names)
    known += (None,) * (len(old) - len(known))
    last = zip(known[-len(new) :], old[-len(new) :], new, strict=True)
    return tuple(name if a == b else None for name, a, b in last)


def keep(run: Callable[..., Any], shardings: Any, *args: Any) -> Any:
    """``run(*args)``, with its results sharded.

    Args:
        run: a function of arrays.
        shardings: a tree of the same structure as the result; None leaves an array as it is.
        *args: arguments of `run`.
    """
    leaves = jax.tree.leaves(shardings)
    if any(_explicit(sharding) for sharding in leaves):
        # The fold of kernels runs without the explicit axes of the mesh.
        return jax.sharding.auto_axes(run, out_sharding=shardings)(*args)
    if not leaves:
        return run(*args)
    return jax.tree.map(
        lambda sharding, array: array if sharding is None else jax.device_put(array, sharding),
        shardings,
        run(*args),
        is_leaf=lambda sharding: sharding is None,
    )


def _explicit(sharding: NamedSharding) -> bool:
    return AxisType.Explicit in sharding.mesh.axis_types
