"""What a compiled function takes: the structure, shapes and types of its arguments."""

from __future__ import annotations

from typing import Any

import jax

from repjax.leaves import Leaves, is_array

_SHOWN = 5


class Signature:
    """The structure of arguments, the shapes and types of their arrays, and all other leaves.

    Args:
        args: the arguments, a tuple of pytrees of arrays, abstract ones among them.

    Example:
        >>> import jax.numpy as jnp
        >>> print(Signature((jnp.ones(3), {"a": 1})).mismatch((jnp.ones(4), {"a": 1})))
        argument 0: compiled for float32[3], called with float32[4]
    """

    def __init__(self, args: tuple[Any, ...]) -> None:
        leaves = Leaves(args)
        struct: Any = jax.ShapeDtypeStruct
        specs = [struct(*_type_of(array)) for array in leaves.arrays]
        self.specs: tuple[Any, ...] = leaves.rebuild(specs)
        self.only_arrays = len(leaves.places) == len(leaves.static)
        self._treedef, self._static = leaves.treedef, leaves.static

    def arrays_of(self, args: tuple[Any, ...]) -> list[Any]:
        """The arrays of arguments, in order.

        Raises:
            TypeError: the other leaves are not those compiled for.
        """
        leaves = Leaves(args)
        pairs = zip(leaves.static, self._static, strict=False)
        if leaves.treedef != self._treedef or not all(_equal(one, two) for one, two in pairs):
            raise TypeError(self.mismatch(args))
        return leaves.arrays

    def mismatch(self, args: tuple[Any, ...]) -> str | None:
        """In which way these arguments are others than those compiled for, or None."""
        if len(args) != len(self.specs):
            wanted, came = (f"{n} argument{'s' * (n != 1)}" for n in (len(self.specs), len(args)))
            return f"compiled for {wanted}, called with {came}"
        expected, found = _by_path(self.specs), _by_path(args)
        differences = [
            f"{path}: compiled for {_shown(expected, path)}, called with {_shown(found, path)}"
            for path in dict.fromkeys((*expected, *found))
            if not (path in expected and path in found and _fits(expected[path], found[path]))
        ]
        if not differences:
            structures: list[Any] = [jax.tree.structure(tree) for tree in (self.specs, args)]
            if structures[0] == structures[1]:
                return None
            differences = [
                "compiled for {:.200}, called with {:.200}".format(*map(str, structures))
            ]
        if len(differences) == 1:
            return differences[0]
        rest = len(differences) - _SHOWN
        more = [f"and {rest} more"] if rest > 0 else []
        return "\n  ".join(
            ["other arguments than those compiled for", *differences[:_SHOWN], *more]
        )


def _by_path(args: tuple[Any, ...]) -> dict[str, Any]:
    found = {}
    for (first, *rest), leaf in jax.tree_util.tree_flatten_with_path(args)[0]:
        path = jax.tree_util.keystr(tuple(rest))
        found[f"argument {first.idx}" + (f" at {path}" if path else "")] = leaf
    return found


def _equal(one: Any, two: Any) -> bool:
    return one is two or (type(one) is type(two) and bool(one == two))


def _fits(expected: Any, found: Any) -> bool:
    if not is_array(expected):
        return _equal(expected, found)
    try:
        return _type_of(expected) == _type_of(found)
    except TypeError:
        return False


def _type_of(leaf: Any) -> tuple[tuple[int, ...], Any]:
    kind = jax.typeof(leaf)
    return kind.shape, kind.dtype


def _shown(leaves: dict[str, Any], path: str) -> str:
    if path not in leaves:
        return "nothing"
    leaf = leaves[path]
    if not is_array(leaf):
        return f"{leaf!r:.60}"
    shape, dtype = _type_of(leaf)
    return f"{dtype}{list(shape)}"
