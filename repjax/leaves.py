"""The arrays of a tree, apart from its other leaves: what a function is traced with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np


def is_array(leaf: Any) -> bool:
    """Whether a leaf of a tree is an array, concrete or abstract."""
    return isinstance(leaf, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct)


class Leaves:
    """The arrays of a tree, apart from its other leaves (functions, names).

    `arrays` are the arrays in order, `places` their positions among all leaves, `treedef` the
    structure of the tree, and `static` all leaves with None in the places of arrays.

    Args:
        tree: any pytree.
        counts: whether a leaf counts as an array.

    Example:
        >>> leaves = Leaves({"name": "net", "w": np.ones(2)})
        >>> leaves.rebuild([np.zeros(2)])
        {'name': 'net', 'w': array([0., 0.])}
    """

    def __init__(self, tree: Any, counts: Callable[[Any], bool] = is_array) -> None:
        leaves, treedef = jax.tree.flatten(tree)
        self.treedef: Any = treedef
        self.places = [place for place, leaf in enumerate(leaves) if counts(leaf)]
        self.arrays = [leaves[place] for place in self.places]
        inside = set(self.places)
        self.static = [None if place in inside else leaf for place, leaf in enumerate(leaves)]

    def rebuild(self, arrays: Sequence[Any]) -> Any:
        """The tree with other arrays in the places of its own.

        Raises:
            ValueError: there are not as many arrays as places.
        """
        leaves = list(self.static)
        for place, array in zip(self.places, arrays, strict=True):
            leaves[place] = array
        return jax.tree.unflatten(self.treedef, leaves)
