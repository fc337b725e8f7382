"""One network in each framework: a call that waits for its result.

Each framework is imported by its own function alone, so that a process holds only one.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class Entry:
    """What a contestant runs.

    Args:
        contestant: its name, one of `CONTESTANTS`.
        network: a name that timm and repjax share.
        batch: images per call.
        size: their height and width.
        dtype: "float32", "bfloat16" or "float16".
        task: "inference" or "training".
        form: "fused" or "native", for inference.
        threads: that it may use.
        folder: where state dicts and ONNX files are.
        budget: seconds that `repjax.compile` may take.
    """

    contestant: str
    network: str
    batch: int
    size: int
    dtype: str
    task: str
    form: str
    threads: int
    folder: str
    budget: float

    @property
    def images(self) -> Array:
        """The images, (batch, channels, height, width), the same for all."""
        shape = (self.batch, 3, self.size, self.size)
        return np.random.default_rng(0).normal(size=shape).astype(np.float32)

    @property
    def state(self) -> Path:
        """The state dict in timm's train form."""
        return Path(self.folder) / f"{self.network}.npz"

    @property
    def onnx(self) -> Path:
        """Torch's export of timm's re-parameterized form."""
        return Path(self.folder) / f"{self.network}-{self.batch}x{self.size}.onnx"


@dataclasses.dataclass(frozen=True)
class Contestant:
    """A network, ready to run.

    Args:
        run: one call, which waits for its result and returns it.
        outputs: that result as an array; the loss of a training step.
        seconds: it took to be compiled.
        note: what was chosen, in words.
    """

    run: Callable[[], Any]
    outputs: Callable[[Any], Array]
    seconds: float
    note: str


def in_jax(entry: Entry) -> Contestant:
    """Ours: timm's weights in our network, compiled by `repjax.compile` or by plain jit."""
    import jax
    import jax.numpy as jnp

    import repjax
    from experiments import timing
    from experiments._programs import step

    dtype: Any = jnp.dtype(entry.dtype)
    training = entry.task == "training"
    stored: Any = jnp.float32 if training else dtype
    model = repjax.models.create(entry.network, dtype=dtype, param_dtype=stored)
    variables = repjax.torch.load(model, entry.state, naming="timm")
    images = jnp.asarray(entry.images.transpose(0, 2, 3, 1), dtype)
    function: Any = model.apply
    if training:
        function = step(model)
    elif entry.form == "fused":
        function, variables = model.deploy().apply, jax.jit(repjax.fuse_params)(variables)
    options = {
        OURS: timing.CONSTANTS,
        OURS_ARGUMENTS: timing.BEST,
        PLAIN_JIT: timing.DEFAULT,
    }[entry.contestant]
    if training and options != timing.DEFAULT:
        options = timing.option_names()[-1]
    program = timing.compile_program(
        entry.form, options, function, variables, images, budget=entry.budget
    )
    return Contestant(
        program.run,
        lambda found: np.asarray(found[0][0] if training else found, np.float32),
        program.compile_seconds,
        program.note,
    )


def in_torch(entry: Entry) -> Contestant:
    """PyTorch, eager or compiled; channels last; weights frozen where it compiles inference."""
    import torch

    from experiments import _timm

    torch.set_num_threads(entry.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, entry.dtype)
    training = entry.task == "training"
    model = _timm.create(entry.network, entry.state)
    if not training and entry.form == "fused":
        model = _timm.reparameterized(model)
    model = model.to(device, memory_format=torch.channels_last)
    images = torch.from_numpy(entry.images).to(device, memory_format=torch.channels_last)
    if not training:
        model, images = model.to(dtype), images.to(dtype)
    start = time.perf_counter()
    function: Any = model.train() if training else model
    if entry.contestant == TORCH_COMPILE:
        torch._inductor.config.freezing = not training
        function = torch.compile(function)

    def infer() -> Any:
        with torch.inference_mode():
            return function(images)

    def train() -> Any:
        model.zero_grad(set_to_none=True)
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            loss = function(images).float().square().mean()
        loss.backward()
        return loss.detach()

    def run() -> Any:
        result = train() if training else infer()
        if device == "cuda":
            torch.cuda.synchronize()
        return result

    run()
    seconds = time.perf_counter() - start
    note = f"{device}, channels last" + (", frozen" if function is not model else "")
    return Contestant(run, lambda found: found.float().cpu().numpy(), seconds, note)


def in_onnxruntime(entry: Entry) -> Contestant:
    """ONNX Runtime."""
    import onnxruntime

    start = time.perf_counter()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = entry.threads
    options.log_severity_level = 3
    known = onnxruntime.get_available_providers()
    local = [name for name in known if name in ("CUDAExecutionProvider", "CPUExecutionProvider")]
    session = onnxruntime.InferenceSession(str(entry.onnx), options, providers=local)
    feed = {session.get_inputs()[0].name: entry.images}
    return Contestant(
        lambda: session.run(None, feed)[0],
        np.asarray,
        time.perf_counter() - start,
        session.get_providers()[0],
    )


def in_openvino(entry: Entry) -> Contestant:
    """OpenVINO, in float32 also where it would choose less by itself."""
    import openvino

    start = time.perf_counter()
    settings = {
        "INFERENCE_NUM_THREADS": entry.threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    model = openvino.Core().compile_model(str(entry.onnx), "CPU", settings)
    request, images = model.create_infer_request(), entry.images
    return Contestant(
        lambda: request.infer([images], share_inputs=True)[0],
        np.asarray,
        time.perf_counter() - start,
        "CPU",
    )


OURS, OURS_ARGUMENTS, PLAIN_JIT = "repjax", "repjax, arguments", "jax.jit"
TORCH, TORCH_COMPILE = "torch", "torch.compile"
ONNX_RUNTIME, OPENVINO = "onnxruntime", "openvino"

CONTESTANTS: dict[str, Callable[[Entry], Contestant]] = {
    OURS: in_jax,
    OURS_ARGUMENTS: in_jax,
    PLAIN_JIT: in_jax,
    TORCH: in_torch,
    TORCH_COMPILE: in_torch,
    ONNX_RUNTIME: in_onnxruntime,
    OPENVINO: in_openvino,
}
"""Ours first: with the parameters baked in, as arguments, and under plain ``jax.jit``."""
