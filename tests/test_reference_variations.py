"""The conformance suite on files that are not shipped: other geometry, fewer arrays.

The truth of each plain block is computed here by a sum over taps in NumPy.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from repjax.torch import StateDictError
from tests.reference_builders import case_of
from tests.test_reference import SHIPPED, Reference, check, of_arrays


def convolve(x: np.ndarray, kernel: np.ndarray, stride: int, groups: int) -> np.ndarray:
    """A convolution of NCHW data that keeps the size where the stride is 1."""
    size, (height, width) = kernel.shape[-1], x.shape[2:]
    padded = np.pad(x, [(0, 0), (0, 0), *[(size // 2, size // 2)] * 2])
    parts = np.split(padded, groups, axis=1)
    kernels = np.split(kernel, groups, axis=0)
    outputs = []
    for part, own in zip(parts, kernels, strict=True):
        taps = [
            np.einsum("nihw,oi->nohw", part[:, :, v : v + height, u : u + width], own[:, :, v, u])
            for v in range(size)
            for u in range(size)
        ]
        outputs.append(sum(taps))
    return np.concatenate(outputs, axis=1)[:, :, ::stride, ::stride]


def plain(
    terms: str,
    *,
    channels: tuple[int, int] = (3, 3),
    stride: int = 1,
    groups: int = 1,
    names: str = "fixed",
) -> dict[str, Any]:
    """The arrays of a file of reference data for a plain block."""
    random = np.random.default_rng(0)
    inputs, outputs = channels
    x = random.normal(size=(2, inputs, 9, 8)).astype(np.float32)
    arrays: dict[str, Any] = {"input": x, "output": np.zeros(())}
    for term in terms.split(" + "):
        if term == "x":
            arrays["output"] = arrays["output"] + x
            continue
        size = int(term[4 : term.index("x")])
        name = f"conv{size}" if names == "by size" or size == 1 else "conv3"
        kernel = random.normal(size=(outputs, inputs // groups, size, size)).astype(np.float32)
        arrays[f"state/{name}.weight"] = kernel
        y = convolve(x.astype(float), kernel.astype(float), stride, groups)
        if term.endswith("(bias)"):
            arrays[f"state/{name}.bias"] = random.normal(size=outputs).astype(np.float32)
            y = y + arrays[f"state/{name}.bias"].astype(float)[:, None, None]
        arrays["output"] = arrays["output"] + y
    constructor = {"in_channels": inputs, "out_channels": outputs, "stride": stride}
    meta = {"family": "plain", "class": terms, "constructor": {**constructor, "groups": groups}}
    return {**arrays, "meta": json.dumps(meta)}


PLAIN: dict[str, dict[str, Any]] = {
    "conv5x5(bias) + conv1x1(bias) + x": {},
    "conv7x7(bias) + conv1x1(bias)": {"channels": (2, 4), "stride": 2},
    "conv5x5(bias) + x": {"groups": 3, "names": "by size"},
    "conv3x3 + conv1x1(bias) + x": {},
}


@pytest.mark.parametrize("terms", PLAIN)
def test_plain_blocks_of_other_sizes(terms: str, x64: None) -> None:
    check(of_arrays(plain(terms, **PLAIN[terms])))


def shipped(name: str) -> dict[str, Any]:
    with np.load(SHIPPED / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def without(arrays: dict[str, Any], *beginnings: str) -> Reference:
    return of_arrays({k: v for k, v in arrays.items() if not k.startswith(beginnings)})


@pytest.mark.parametrize("parts", [("deploy/",), ("deploy/", "deploy_output"), ("deploy_output",)])
def test_what_a_file_does_not_hold_is_left_out(parts: tuple[str, ...], x64: None) -> None:
    check(without(shipped("repvgg_block_8to16_s2"), *parts))


def test_a_meta_of_what_is_needed_alone(x64: None) -> None:
    arrays = shipped("plain_conv3_conv1_id_random")
    meta = json.loads(str(arrays["meta"]))
    kept = {name: meta[name] for name in ("family", "class", "constructor")}
    check(of_arrays({**arrays, "meta": json.dumps(kept)}))


def test_what_a_file_does_hold_must_agree(x64: None) -> None:
    arrays = shipped("plain_conv3_conv1_id_random")
    for name in ("output", "deploy_output", "deploy/weight", "state/conv1.bias"):
        wrong = {**arrays, name: arrays[name] * (1 + 1e-6)}
        with pytest.raises(AssertionError):
            check(of_arrays(wrong))
    missing = without(arrays, "state/conv1.weight")
    with pytest.raises(StateDictError, match=r"conv1\.weight: missing"):
        check(missing)


def test_an_unknown_class_is_named() -> None:
    with pytest.raises(KeyError, match="no builder of RepVGG: RepVGGplusBlock; known are"):
        case_of({"family": "RepVGG", "class": "RepVGGplusBlock"})
    with pytest.raises(ValueError, match="found 'conv3x3,bias'"):
        case_of({"family": "plain", "class": "conv3x3,bias", "constructor": {"out_channels": 1}})
