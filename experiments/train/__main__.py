"""The command line: a recipe, and flags for what should be otherwise."""

from __future__ import annotations

import contextlib
import io
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
    try:
        config = parsed(name, words)
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


def parsed(name: str, words: Sequence[str]) -> Config:
    """The settings of a recipe, changed by flags.

    Args:
        name: of the recipe.
        words: of the command line, after it.

    Raises:
        RunError: a setting does not fit.
        SystemExit: after --help, and with code 2 after a line about a wrong flag.
    """
    recipe, errors = RECIPES[name], io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            config: Config = tyro.cli(
                tyro.conf.OmitArgPrefixes[Config],
                prog=f"python -m experiments.train {name}",
                description=f"Recipes: {', '.join(RECIPES)}.\n\n{recipe.__doc__}",
                args=words,
                default=recipe.CONFIG,
            )
            return config
    except SystemExit as error:
        if error.code:
            _fail(f"{unboxed(errors.getvalue())} (--help lists all)", 2)
        raise
    return config


def unboxed(text: str) -> str:
    r"""The first paragraph of what tyro prints in a box, in one line.

    Args:
        text: the box.

    Example:
        >>> unboxed("╭─ Oops ──╮\n│ wrong   │\n│ flag    │\n│ ─────── │\n│ more    │\n╰─────────╯")
        'wrong flag'
        >>> unboxed(" Oops \n -----\n wrong \n flag \n -----\n more \n")
        'wrong flag'
    """
    lines = [line.strip("│ ") for line in text.splitlines()[1:]]
    ruled = [not line.strip("─-╰╯ ") for line in lines]
    begin = ruled.index(False) if False in ruled else 0
    end = ruled.index(True, begin) if True in ruled[begin:] else len(lines)
    return " ".join(lines[begin:end])


def _fail(words: str, code: int) -> int:
    sys.stderr.write(f"experiments.train: {words}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
