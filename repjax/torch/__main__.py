"""``python -m repjax.torch MODEL FROM TO``: a PyTorch state dict file to a file of variables."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from repjax import fuse_params, models, verify
from repjax._files import check_target
from repjax.models.registry import override_of
from repjax.torch import files
from repjax.torch.load import Loaded, convert

WIDTH = 30  # of the progress bar
PATIENCE = 1.0  # seconds before it appears


def parser() -> argparse.ArgumentParser:
    """The command line's options."""
    result = argparse.ArgumentParser(
        prog="python -m repjax.torch",
        description=(
            "Convert a PyTorch state dict to variables of a repjax network. Pickles (.pth) are "
            "not opened; for one, the line is printed that converts it where PyTorch is."
        ),
        epilog=(
            "Names in the written file are paths joined by '/'; flax.traverse_util."
            "unflatten_dict(dict(repjax.torch.read(path)), sep='/') makes the variables of them."
        ),
    )
    result.add_argument("model", help="name of the network, for example repvgg_a0")
    result.add_argument("source", help="state dict, .safetensors or .npz")
    result.add_argument("target", help="file to write, .safetensors or .npz")
    result.add_argument("--naming", help="original or timm; tried in turn by default")
    result.add_argument("--num-classes", type=int, default=1000)
    result.add_argument("--in-channels", type=int, default=3)
    result.add_argument(
        "--set",
        type=_override,
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="another field of the network, as repjax.models.create takes it: --set heads=1",
    )
    result.add_argument("--fuse", action="store_true", help="write the deploy form")
    result.add_argument(
        "--verify", action="store_true", help="with --fuse: compare both forms before writing"
    )
    result.add_argument(
        "--new-head", type=int, metavar="SEED", help="leave the head out, initialize another"
    )
    result.add_argument("--force", action="store_true", help="replace a target that exists")
    return result


def _override(text: str) -> tuple[str, Any]:
    try:
        return override_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert one file; problems go to standard error, and the result is 1.

    Args:
        arguments: of the command line; None takes the program's.

    Returns:
        The exit code.
    """
    options = parser().parse_args(arguments)
    try:
        run(options)
    except (ValueError, TypeError, OSError, ModuleNotFoundError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def run(options: argparse.Namespace) -> None:
    """Convert one file, and print what was done.

    Raises:
        ValueError: source and target are the same file, options do not go together, or the
            forms differ; also as `repjax.models.create` and `load`.
        OSError: a file cannot be read or written.
    """
    paths = options.source, options.target
    if all(map(os.path.exists, paths)) and os.path.samefile(*paths):
        raise ValueError(f"{options.target}: source and target are the same file")
    check_target(options.target, force=options.force)
    if options.verify and not options.fuse:
        raise ValueError("--verify compares the deploy form with the train form; add --fuse")
    model = models.create(
        options.model,
        num_classes=options.num_classes,
        in_channels=options.in_channels,
        **dict(options.set),
    )
    new_head = None if options.new_head is None else jax.random.key(options.new_head)
    loaded = convert(
        model,
        options.source,
        naming=options.naming,
        new_head=new_head,
        progress=bar("reading", sys.stderr),
    )
    sys.stdout.write(f"{options.source}: {loaded}\n")
    if new_head is not None:
        sys.stdout.write(f"a new head was initialized for {options.num_classes} classes\n")
    variables = fuse_params(loaded.variables) if options.fuse else loaded.variables
    if options.verify:
        _verify(model, loaded, variables)
    flat = traverse_util.flatten_dict(variables, sep="/")  # type: ignore[no-untyped-call]
    files.write(options.target, flat, force=options.force)
    form = "deploy" if options.fuse or loaded.deployed else "train"
    megabytes = Path(options.target).stat().st_size / 1e6
    sys.stdout.write(f"{options.target}: {form} form, {len(flat)} arrays, {megabytes:.1f} MB\n")
    if form == "train":
        sys.stdout.write("(--fuse --verify writes the deploy form, and proves it equal)\n")
    elif options.fuse and not options.verify and not loaded.deployed:
        sys.stdout.write("(--verify compares it with the train form)\n")


def _verify(model: models.Network, loaded: Loaded, variables: dict[str, Any]) -> None:
    if loaded.deployed:
        raise ValueError("--verify: the file is in deploy form already; there is nothing to verify")
    height, width = (min(size, 64) for size in _input_size(model))
    random = np.random.default_rng(0).normal(size=(2, height, width, model.in_channels))
    images = jnp.asarray(random, jnp.float32)
    verdict = verify(model.apply, loaded.variables, model.deploy().apply, variables, images)
    sys.stdout.write(f"{verdict}\n")
    if not verdict:
        raise ValueError("the deploy form differs from the train form; nothing was written")


def _input_size(model: Any) -> tuple[int, int]:
    height, width = model.config.preprocessing.input_size
    return height, width


def bar(label: str, stream: Any) -> Callable[[int, int], None]:
    """A progress bar for a terminal, which appears after a second; elsewhere nothing.

    Args:
        label: what is done.
        stream: where to draw it.

    Returns:
        A function of the bytes that are done and of all bytes.
    """
    start = time.monotonic()
    drawn = False

    def show(done: int, total: int) -> None:
        nonlocal drawn
        if not stream.isatty() or (not drawn and time.monotonic() - start < PATIENCE):
            return
        filled = WIDTH * done // max(total, 1)
        text = f"\r{label} {'#' * filled:{WIDTH}} {done / 1e6:.0f} of {total / 1e6:.0f} MB"
        stream.write(text if done < total else f"\r{'':{len(text)}}\r")
        stream.flush()
        drawn = True

    return show


if __name__ == "__main__":
    sys.exit(main())
