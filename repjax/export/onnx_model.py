"""`onnx`: a program and its parameters as an ONNX model, checked in ONNX Runtime."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from repjax._files import check_target, replacing
from repjax.compiling.compiled import in_short
from repjax.export._comparison import batch_size, require_equal


def onnx(
    path: str | Path,
    apply: Callable[..., Any],
    variables: Any,
    *inputs: Any,
    batch: str | None = "batch",
    channels_first: bool = False,
    force: bool = False,
) -> None:
    """Write a program with its parameters as an ONNX model, for any batch size.

    jax2onnx writes the model, ONNX Runtime's basic optimization then merges biases into the
    convolutions and takes out the transpositions between them, so that a fused network is one
    `Conv` node, and a `Relu`, for each of its convolutions; one transposition is left in front
    of the first (none with `channels_first`), and one behind the last. It counts as written
    once ONNX Runtime gave the outputs of `apply`, on the inputs and on a batch that is larger
    by one.

    The input is called `input`, or `input_0`, ... where there are several; so are the outputs,
    in the order of the leaves of what `apply` returns.

    Args:
        path: path of the file, `.onnx`.
        apply: a function of `variables` and `inputs`, such as ``model.deploy().apply``.
        variables: parameters, which become initializers of the model.
        *inputs: arrays with values, (batch, ...) each, of float32 or integers.
        batch: name of the batch axis; None keeps the sizes of the inputs.
        channels_first: inputs of rank 4 are (batch, channels, height, width) in the model,
            as models from PyTorch have them, instead of (batch, height, width, channels).
        force: replace a file that is there already.

    Raises:
        FileExistsError: the file exists, and `force` is false.
        OSError: it cannot be written.
        TypeError: an input is no array.
        ValueError: jax2onnx cannot convert the program, or the model computes something else.
        ModuleNotFoundError: jax2onnx or onnxruntime is missing.

    Example:
        >>> import repjax
        >>> model = repjax.models.create("repvgg_a0", deployed=True)
        >>> onnx("network.onnx", model.apply, variables, images)  # doctest: +SKIP
    """
    path = Path(path)
    check_target(path, force=force)
    jax2onnx, runtime = _library("jax2onnx"), _library("onnxruntime")
    for number, one in enumerate(inputs):
        if not hasattr(one, "shape"):
            raise TypeError(f"input {number} is a {type(one).__name__}, expected an array")

    def run(*args: Any) -> Any:
        return apply(variables, *args)

    size = None if batch is None else batch_size(inputs)
    specs = [
        jax.ShapeDtypeStruct(
            tuple(batch if axis == 0 and n == size else n for axis, n in enumerate(one.shape)),
            jnp.result_type(one),
        )  # type: ignore[no-untyped-call]
        for one in inputs
    ]
    moved = [n for n, one in enumerate(inputs) if channels_first and one.ndim == 4]
    outputs = jax.tree.leaves(jax.eval_shape(run, *inputs))
    try:
        with warnings.catch_warnings():  # jax2onnx's own
            warnings.simplefilter("ignore")
            proto = jax2onnx.to_onnx(
                lambda *args: _flat(run(*args)),
                specs,
                inputs_as_nchw=moved or None,
                input_names=_numbered("input", len(inputs)),
                output_names=_numbered("output", len(outputs)),
            )
    except Exception as error:  # a converter of many operations fails in many ways
        raise ValueError(f"{path}: jax2onnx cannot convert it: {in_short(error)}") from error
    with replacing(path, force=force) as temporary:
        _simplify(runtime, proto.SerializeToString(), temporary)
        _tidy(temporary)
        session = runtime.InferenceSession(
            temporary.read_bytes(), providers=["CPUExecutionProvider"]
        )
        names = [one.name for one in session.get_inputs()]

        def written(*args: Any) -> Any:
            arrays = [np.asarray(one) for one in args]
            given = [a.transpose(0, 3, 1, 2) if n in moved else a for n, a in enumerate(arrays)]
            return session.run(None, dict(zip(names, given, strict=True)))

        require_equal(str(path), run, inputs, written, grow=batch is not None)


def _simplify(runtime: Any, model: bytes, path: Path) -> None:
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _tidy(path: Path) -> None:
    """Write maxima with zero as `Relu`, which runtimes merge into convolutions; check the model."""
    onnx = importlib.import_module("onnx")
    model = onnx.load(path)
    zeros = {
        constant.name
        for constant in model.graph.initializer
        if not constant.dims and not onnx.numpy_helper.to_array(constant).any()
    }
    for node in model.graph.node:
        rest = [name for name in node.input if name not in zeros]
        if node.op_type == "Max" and len(node.input) == 2 and len(rest) == 1:
            node.op_type = "Relu"
            del node.input[:]
            node.input.extend(rest)
    read = {name for node in model.graph.node for name in node.input}
    for constant in [one for one in model.graph.initializer if one.name not in read]:
        model.graph.initializer.remove(constant)
    used = {node.domain for node in model.graph.node} | {""}
    kept = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _flat(tree: Any) -> Any:
    leaves = jax.tree.leaves(tree)
    return leaves[0] if len(leaves) == 1 else tuple(leaves)


def _numbered(word: str, count: int) -> list[str]:
    return [word] if count == 1 else [f"{word}_{number}" for number in range(count)]


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'ONNX models need {name}: python -m pip install "repjax[export]"'
        ) from error
