"""A checkpoint in, a verified deploy file out.

python -m experiments.fuse_checkpoint IN OUT [--model NAME --num-classes N --image-size S]
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before JAX; see repjax.compiler_options

import jax.numpy as jnp
import numpy as np
import tyro

import repjax
from experiments import _variables_files as variables_files
from experiments._node_checks import NodeCheck, check_nodes
from repjax.models.registry import override_of


@dataclasses.dataclass(frozen=True)
class Config:
    """Fuse a checkpoint, verify it, and write it in the format of the target's suffix.

    Without a model every block is run as its branches and as its fold, in float64 on random
    data; with one the whole network is verified too, and programs can be written.
    """

    source: tyro.conf.Positional[Path]
    """An Orbax folder, .safetensors or .npz; with --model a state dict of PyTorch too."""
    target: tyro.conf.Positional[Path]
    """.safetensors, .npz, a folder for Orbax; with a model .stablehlo and .onnx too."""
    model: str | None = None
    """Name of the network, one of repjax.models.names(); files of repjax.export name it."""
    num_classes: int = 1000
    """Outputs of its head."""
    image_size: int | None = None
    """Height and width of the images it is verified with; the network's own by default."""
    fields: Annotated[tuple[str, ...], tyro.conf.arg(name="set", metavar="FIELD=VALUE")] = ()
    """Other fields of the network, as repjax.models.create takes them."""
    state_dict: bool = False
    """Write a state dict with timm's names, to .safetensors or .npz."""
    force: bool = False
    """Replace a target that exists."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuse one checkpoint; problems go to standard error in a line, and the result is 1.

    Args:
        arguments: of the command line; None takes the program's.

    Returns:
        The exit code.
    """
    config = tyro.cli(Config, args=arguments)
    try:
        for line in run(config):
            print(line, flush=True)
    except (ValueError, TypeError, OSError, ModuleNotFoundError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def run(config: Config) -> Any:
    """Fuse one checkpoint; yields a line about each thing that was done.

    Raises:
        ValueError: verification fails, or nothing is there to fuse; also as the reader and the
            writers.
        OSError: a file cannot be read or written.
    """
    source, target = config.source, config.target
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such file or folder")
    if target.exists() and source.samefile(target):
        raise ValueError(f"{target}: source and target are the same")
    variables_files.check(target, force=config.force)
    model, variables, words = variables_files.read(source, _model(config))
    yield f"{source}: {words}"
    checks = check_nodes(variables)
    if not checks:
        raise ValueError(f"{source}: holds no block with branches; is it fused already?")
    yield _judged(checks)
    deployed = repjax.fuse_params(variables)
    images, twin = None, None
    if model is not None:
        twin, images = model.deploy(), _images(model, config.image_size)
        verdict = repjax.verify(model.apply, variables, twin.apply, deployed, images)
        yield f"the whole network at {images.shape}: {verdict}"
        if not verdict:
            raise ValueError(f"{target}: is not written, the network differs from its deploy form")
    written = variables_files.write(
        target, twin, deployed, images, state_dict=config.state_dict, force=config.force
    )
    size = sum(f.stat().st_size for f in (target, *target.rglob("*")) if f.is_file())
    yield f"{target}: {written}, {size / 1e6:.1f} MB"


def _model(config: Config) -> Any:
    if config.model is None:
        if config.fields:
            raise ValueError("--set changes fields of the network that --model names")
        return None
    fields = dict(map(override_of, config.fields))
    return repjax.models.create(config.model, num_classes=config.num_classes, **fields)


def _images(model: Any, size: int | None) -> Any:
    if size is not None and size < 1:
        raise ValueError(f"--image-size is at least 1, found {size}")
    height, width = (size, size) if size else model.config.preprocessing.input_size
    random = np.random.default_rng(0).normal(size=(2, height, width, model.in_channels))
    return jnp.asarray(random, jnp.float32)


def _judged(checks: list[NodeCheck]) -> str:
    """The line about all blocks.

    Raises:
        ValueError: some differ from their folds.
    """
    wrong = [check for check in checks if not check.exact]
    if wrong:
        listed = [f"  {check.path}/{check.name}: {check.error:.1e}" for check in wrong[:10]]
        more = [f"  and {len(wrong) - 10} more"] if len(wrong) > 10 else []
        head = f"nothing is written, {len(wrong)} of {len(checks)} blocks differ from their folds:"
        raise ValueError("\n".join([head, *listed, *more]))
    compared = [check.error for check in checks if check.error is not None]
    own = len(checks) - len(compared)
    rest = f"; {own} registered ones have nothing to be compared with" if own else ""
    worst = f", {max(compared):.1e} of the largest output apart at most" if compared else ""
    return f"{len(compared)} blocks equal their folds in float64{worst}{rest}"


if __name__ == "__main__":
    sys.exit(main())
