"""`stablehlo`: a program and its parameters in one file that `jax.export` reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from jax import export

from repjax._files import check_target, replacing
from repjax.compiling.compiled import in_short
from repjax.export._comparison import require_equal, symbolic


def stablehlo(
    path: str | Path,
    apply: Callable[..., Any],
    variables: Any,
    *inputs: Any,
    batch: str | None = "batch",
    platforms: Sequence[str] | None = None,
    force: bool = False,
) -> None:
    """Write a program with its parameters as StableHLO, for any batch size.

    The file is what `jax.export` serializes; it is read by
    ``jax.export.deserialize(bytearray(path.read_bytes())).call(*inputs)``, without this
    library and without the code of the network. It counts as written once it was read back
    and gave the outputs of `apply`, on the inputs and on a batch that is larger by one.

    Args:
        path: path of the file.
        apply: a function of `variables` and `inputs`, such as ``model.deploy().apply``.
        variables: parameters, which become constants of the program.
        *inputs: pytrees of arrays with values, (batch, ...) each; arrays whose first axis has
            another size than that of the first one keep it.
        batch: name of the symbolic batch size; None keeps the sizes of the inputs.
        platforms: names as `jax.export` has them ("cpu", "cuda", "tpu"); None is the one
            at hand. That one has to be among them.
        force: replace a file that is there already.

    Raises:
        FileExistsError: the file exists, and `force` is false.
        OSError: it cannot be written.
        ValueError: the program depends on the batch size, cannot be serialized, or computes
            something else when it is read back.
        ModuleNotFoundError: the flatbuffers library is missing.

    Example:
        >>> import tempfile, jax.numpy as jnp
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "double.stablehlo")
        ...     stablehlo(path, lambda w, x: w * x, 2.0, jnp.ones((1, 3)))
        ...     export.deserialize(bytearray(path.read_bytes())).call(jnp.ones((2, 3))).shape
        (2, 3)
    """
    check_target(path, force=force)

    def run(*args: Any) -> Any:
        return apply(variables, *args)

    size = None if batch is None else export.symbolic_shape(batch)[0]
    try:
        exported = export.export(jax.jit(run), platforms=platforms)(*symbolic(inputs, size))
        content = exported.serialize()
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'StableHLO files need the flatbuffers library: python -m pip install "repjax[files]"'
        ) from error
    except Exception as error:  # a symbolic size makes programs fail in any way
        hint = "" if batch is None else "; batch=None keeps the sizes of the inputs"
        raise ValueError(f"{path}: cannot be exported{hint}: {in_short(error)}") from error
    with replacing(path, force=force) as temporary:
        temporary.write_bytes(content)
        again = export.deserialize(bytearray(temporary.read_bytes()))
        require_equal(str(path), run, inputs, jax.jit(again.call), grow=batch is not None)
