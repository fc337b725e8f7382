"""``python -m repjax.torch MODEL FROM TO``: a PyTorch state dict file to a file of variables."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import jax
from flax import traverse_util

from repjax import fuse_params, models
from repjax.torch import files
from repjax.torch.load import load


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert one file; problems go to standard error, and the result is 1.

    Args:
        arguments: of the command line; None takes the program's.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(
        prog="python -m repjax.torch",
        description=(
            "Convert a PyTorch state dict to variables of a repjax network. Pickles are not "
            'opened: in PyTorch, safetensors.torch.save_file(torch.load("x.pth", '
            'weights_only=True), "x.safetensors").'
        ),
        epilog=(
            "Names in the written file are paths joined by '/'; flax.traverse_util."
            "unflatten_dict(dict(repjax.torch.read(path)), sep='/') makes the variables of them."
        ),
    )
    parser.add_argument("model", help="name of the network, for example repvgg_a0")
    parser.add_argument("source", help="state dict, .safetensors or .npz")
    parser.add_argument("target", help="file to write, .safetensors or .npz")
    parser.add_argument("--naming", help="original or timm; tried in turn by default")
    parser.add_argument("--num-classes", type=int, default=1000)
    parser.add_argument("--in-channels", type=int, default=3)
    parser.add_argument("--fuse", action="store_true", help="write the deploy form")
    parser.add_argument(
        "--new-head", type=int, metavar="SEED", help="leave the head out, initialise another"
    )
    options = parser.parse_args(arguments)
    try:
        model = models.create(
            options.model, num_classes=options.num_classes, in_channels=options.in_channels
        )
        new_head = None if options.new_head is None else jax.random.key(options.new_head)
        variables = load(model, options.source, naming=options.naming, new_head=new_head)
        variables = fuse_params(variables) if options.fuse else variables
        flat = traverse_util.flatten_dict(variables, sep="/")  # type: ignore[no-untyped-call]
        files.write(options.target, flat)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
