"""The command line: a recipe, and flags for what should be otherwise."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before JAX; see repjax.compiler_options

import tyro

from experiments.train.config import Config
from experiments.train.errors import RunError, one_line
from experiments.train.loop import run
from experiments.train.recipes import RECIPES


def main(arguments: Sequence[str] | None = None) -> int:
    """Train; problems go to standard error in one line, and the result is 1.

    Args:
        arguments: of the command line; None takes the program's.

    Returns:
        The exit code: 2 for a wrong flag, 130 when interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    name = words.pop(0) if words and not words[0].startswith("-") else "digits"
    if name not in RECIPES:
        return _fail(f"{name}: no recipe; expected one of {', '.join(RECIPES)}", 2)
    recipe = RECIPES[name]
    program = f"python -m experiments.train {name}"
    others = f"Recipes: {', '.join(RECIPES)}.\n\n{recipe.__doc__}"
    try:
        config = tyro.cli(
            tyro.conf.OmitArgPrefixes[Config],
            prog=program,
            description=others,
            args=words,
            default=recipe.CONFIG,
        )
        result = run(config, name)
    except RunError as error:
        return _fail(str(error), 1)
    except OSError as error:
        return _fail(one_line(error), 1)
    except KeyboardInterrupt:
        return _fail("interrupted; --resume goes on after the last checkpoint", 130)
    if result["test_accuracy_fused"] < config.finish.required_accuracy:
        return _fail(
            f"test accuracy {result['test_accuracy_fused']:.2%}, required "
            f"{config.finish.required_accuracy:.2%}",
            1,
        )
    return 0


def _fail(words: str, code: int) -> int:
    sys.stderr.write(f"experiments.train: {words}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
