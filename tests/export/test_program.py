"""StableHLO files: read back by jax.export alone, for any batch size; what cannot be, refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import repjax


def read(path: Path) -> Any:
    return jax.export.deserialize(bytearray(path.read_bytes())).call


def test_any_batch_size_and_the_parameters_inside(tmp_path: Path, network: Any) -> None:
    model, variables, images = network
    path = tmp_path / "network.stablehlo"
    repjax.export.stablehlo(path, model.apply, variables, images)
    for batch in (1, 5):
        some = jnp.resize(images, (batch, *images.shape[1:]))
        expected = model.apply(variables, some)
        assert np.allclose(read(path)(some), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(FileExistsError, match="force=True"):
        repjax.export.stablehlo(path, model.apply, variables, images)
    assert [file.name for file in tmp_path.iterdir()] == ["network.stablehlo"]


def test_pytrees_and_arrays_without_a_batch(tmp_path: Path) -> None:
    def apply(w: Any, x: Any, scale: Any) -> Any:
        return {"a": x["a"] @ w * scale, "best": jnp.argmax(x["b"], -1)}

    w, rng = jnp.eye(3) * 2, np.random.default_rng(0)
    x = {"a": rng.normal(size=(2, 3)), "b": rng.normal(size=(2, 4))}
    path = tmp_path / "p.stablehlo"
    repjax.export.stablehlo(path, apply, w, jax.tree.map(jnp.float32, x), jnp.float32(3))
    found = read(path)({"a": jnp.ones((5, 3)), "b": jnp.eye(5, 4)}, jnp.float32(3))
    assert found["a"].tolist() == [[6, 6, 6]] * 5
    assert found["best"].tolist() == [0, 1, 2, 3, 0]


def test_a_program_of_one_size_is_refused_and_fits_with_batch_none(tmp_path: Path) -> None:
    def apply(w: Any, x: Any) -> Any:
        return w[: x.shape[0]] + jnp.sin(x)

    path, x = tmp_path / "p.stablehlo", jnp.ones((2, 2))
    with pytest.raises(ValueError, match=r"p\.stablehlo: cannot be exported; batch=None keeps"):
        repjax.export.stablehlo(path, apply, jnp.ones((4, 2)), x)
    assert not list(tmp_path.iterdir())
    repjax.export.stablehlo(path, apply, jnp.ones((4, 2)), x, batch=None)
    assert np.allclose(read(path)(x), 1 + np.sin(1))
    with pytest.raises(ValueError, match="no input has a batch axis"):
        repjax.export.stablehlo(tmp_path / "q", lambda w, x: x, None, jnp.float32(1))


def test_what_computes_something_else_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong:
        def call(self, x: Any) -> Any:
            return x + 2

    monkeypatch.setattr("jax.export.deserialize", lambda content: Wrong())
    with pytest.raises(ValueError, match="is not written, it computes something else: 6 of 6"):
        repjax.export.stablehlo(tmp_path / "p", lambda w, x: x * w, 2.0, jnp.ones((2, 3)))
    assert not list(tmp_path.iterdir())
