"""What is written is compared before it counts: outputs on the given inputs and on one more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from repjax.compiling.compiled import in_short
from repjax.compiling.forms import Forms
from repjax.compiling.tolerance import compare, expect, outputs_of


def require_equal(
    what: str,
    function: Callable[..., Any],
    inputs: Sequence[Any],
    written: Callable[..., Any],
    *,
    grow: bool,
) -> None:
    """Refuse what was written unless it gives the outputs of the function.

    Args:
        what: the path, for messages.
        function: what was written, of the inputs.
        inputs: pytrees of arrays with values.
        written: what was read back.
        grow: compare on a batch that is larger by one, too.

    Raises:
        ValueError: outputs differ by more than rounding, see `repjax.compile`, or what was
            read back does not run.
    """
    for args in (inputs, enlarged(inputs)) if grow else (inputs,):
        with jax.default_matmul_precision("highest"):
            forms = Forms(function, tuple(args))
            expected = expect(jax.jit(function), list(args), forms.roundoff("cpu"))
            try:
                found = outputs_of(written(*args))
            except Exception as error:  # whatever a foreign runtime trips over
                raise ValueError(
                    f"{what}: is not written, it does not run when read back: {in_short(error)}"
                ) from error
        shapes = [[list(one.value.shape) for one in expected], [list(a.shape) for a in found]]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"{what}: is not written, it gives shapes {shapes[1]}, expected {shapes[0]}"
            )
        problem = compare(expected, found)
        if problem is not None:
            raise ValueError(f"{what}: is not written, it computes something else: {problem}")


def enlarged(inputs: Sequence[Any]) -> list[Any]:
    """The same inputs with the first example once more at the end of the batch."""
    size = batch_size(inputs)
    larger: list[Any] = jax.tree.map(
        lambda leaf: jnp.concatenate([leaf, leaf[:1]]) if _batched(leaf, size) else leaf,
        list(inputs),
    )
    return larger


def batch_size(inputs: Sequence[Any]) -> int:
    """The size of the first axis of the first array that has axes.

    Raises:
        ValueError: no array has an axis.
    """
    for leaf in jax.tree.leaves(list(inputs)):
        if np.ndim(leaf):
            return int(np.shape(leaf)[0])
    raise ValueError("no input has a batch axis; batch=None exports the sizes as they are")


def symbolic(inputs: Sequence[Any], batch: Any) -> list[Any]:
    """Shapes and types of the inputs, with another size in the place of the batch's."""
    size = None if batch is None else batch_size(inputs)

    def spec(leaf: Any) -> Any:
        shape = tuple(np.shape(leaf))
        if batch is not None and _batched(leaf, size):
            shape = (batch, *shape[1:])
        return jax.ShapeDtypeStruct(shape, jnp.result_type(leaf))  # type: ignore[no-untyped-call]

    specs: list[Any] = jax.tree.map(spec, list(inputs))
    return specs


def _batched(leaf: Any, size: int | None) -> bool:
    return bool(np.ndim(leaf)) and np.shape(leaf)[0] == size
