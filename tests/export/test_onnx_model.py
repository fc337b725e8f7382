"""ONNX models: plain Conv nodes, any batch size. Runs where the extra `export` is installed."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import repjax


def test_without_the_libraries_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "jax2onnx", None)
    with pytest.raises(ModuleNotFoundError, match=r"repjax\[export\]"):
        repjax.export.onnx(tmp_path / "n.onnx", lambda w, x: x, None, jnp.ones((1, 2)))


@pytest.mark.parametrize("channels_first", [False, True])
def test_one_convolution_each_and_no_transposition_between(
    tmp_path: Path, network: Any, channels_first: bool
) -> None:
    pytest.importorskip("jax2onnx")
    import onnx
    import onnxruntime

    model, variables, images = network
    path = tmp_path / "n.onnx"
    repjax.export.onnx(path, model.apply, variables, images, channels_first=channels_first)
    graph = onnx.load(path).graph
    kinds = collections.Counter(node.op_type for node in graph.node)
    assert kinds["Conv"] == 5
    assert kinds["Relu"] == 5
    assert not {"Max", "Add", "Div"} & {kind for kind in kinds if kinds[kind] > 1}
    assert [one.name for one in graph.input] == ["input"]
    assert [one.name for one in graph.output] == ["output"]
    assert kinds["Transpose"] <= 2  # in front of the first and behind the last
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert all(len(node.input) == 3 for node in convolutions[:-1])  # with their biases
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    some = np.asarray(jnp.resize(images, (7, *images.shape[1:])))
    given = some.transpose(0, 3, 1, 2) if channels_first else some
    found = session.run(None, {session.get_inputs()[0].name: given})[0]
    assert np.allclose(found, model.apply(variables, some), rtol=1e-4, atol=1e-5)


def test_what_jax2onnx_does_not_know_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("jax2onnx")

    def apply(w: Any, x: Any) -> Any:
        return jnp.linalg.svd(x)[0]

    with pytest.raises(ValueError, match=r"n\.onnx: jax2onnx cannot convert it") as caught:
        repjax.export.onnx(tmp_path / "n.onnx", apply, None, jnp.ones((2, 3, 3)))
    assert len(str(caught.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())
