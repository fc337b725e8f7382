"""Keeping shardings: results of a fold lie on the devices as the arrays they replace did."""

from __future__ import annotations

from collections.abc import Callable
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
    names = (*sharding.spec, *(None,) * (leaf.ndim - len(sharding.spec)))
    last = zip(names[-len(shape) :], leaf.shape[-len(shape) :], shape, strict=True)
    kept = [name if old == new else None for name, old, new in last]
    spec = PartitionSpec(*kept)  # type: ignore[no-untyped-call]
    return NamedSharding(sharding.mesh, spec, memory_kind=sharding.memory_kind)


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
