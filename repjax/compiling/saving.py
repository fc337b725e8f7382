"""Compiled programs in files: `save_compiled` and `load_compiled`. Nothing is ever unpickled."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
from pathlib import Path
from typing import Any

import jax
from jax import export

from repjax._files import FileError, check_target, replacing
from repjax.compiling.compiled import Compiled, Source, Trial, in_short
from repjax.compiling.options import Options, expected_calls
from repjax.compiling.program_file import Contents, read, write
from repjax.compiling.signature import Signature


def save_compiled(compiled: Compiled, path: str | Path, *, force: bool = False) -> None:
    """Write a compiled function to a file, then read it back and compare before it counts.

    The file holds what `jax.export` makes of the chosen form, with baked constants; the
    chosen options; and, for a check, a few numbers of every argument and output.

    Args:
        compiled: what `repjax.compile` or `load_compiled` gave.
        path: path of the file.
        force: replace a file that is there already.

    Raises:
        FileExistsError: the file exists, and `force` is false.
        OSError: it cannot be written.
        ValueError: the program or its arguments cannot be serialized, or what was read back
            computes something else.
        ModuleNotFoundError: the flatbuffers library is missing.
    """
    check_target(path, force=force)
    signature, source = compiled.signature, compiled.source
    if not signature.only_arrays:
        raise ValueError(
            f"{path}: is not written: an argument has leaves that are no arrays, which a file "
            "cannot keep; bake it in (constants=True), or compile a function of the arrays alone"
        )
    text = compiled.program.as_text() or ""
    contents = Contents(
        _serialized(path, source.function, signature.specs, compiled.platform),
        compiled.trials,
        source.probe,
        tuple(source.probe.expected(compiled.program, signature.specs)),
        tuple(call for call in expected_calls(compiled.platform) if call in text),
        compiled.platform,
        compiled.constants,
        importlib.metadata.version("jaxlib"),
    )
    with replacing(path, force=force) as temporary:
        write(temporary, contents)
        load_compiled(temporary)


def load_compiled(path: str | Path) -> Compiled:
    """Read a file of `Compiled.save` and compile it for this machine, with the saved options.

    Options that are refused here, or no longer have their effect, are left out, and the
    result says so when it is printed. On random arguments like those that it was compiled
    with, the program has to give the outputs that it gave where it was saved, up to rounding.

    Args:
        path: path of the file.

    Returns:
        A `Compiled`, called as the one that was saved.

    Raises:
        FileError: the file is damaged or of another kind, holds a program for another
            platform, or computes something else here.
        OSError: it cannot be opened.
        TypeError: `path` is no path.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"expected a path, found {path!r:.40}")
    contents = read(Path(path))
    written = f"written with jaxlib {contents.jaxlib}"
    try:
        exported = export.deserialize(bytearray(contents.program))
    except Exception as error:  # other versions of jax may trip over anything
        version = f"jax {jax.__version__} cannot read its program, {written}"
        raise FileError(f"{path}: {version}: {in_short(error)}") from error
    specs = _specs(path, exported, contents.platform)
    trials, remarks = list(contents.trials), [f"read from a file, {written}"]
    chosen = next(trial for trial in trials if trial.verdict == "chosen")
    program, problem = _compiled(exported, specs, contents, chosen.options)
    if problem is not None and chosen.options:
        failed = dataclasses.replace(chosen, verdict="failed", reason=problem)
        trials[trials.index(chosen)] = failed
        trials.append(Trial("without options", {}, chosen.shifted, "chosen"))
        remarks.append(f"compiled without the options of {chosen.name}: {problem}")
        program, problem = _compiled(exported, specs, contents, {})
    if program is None or problem is not None:
        raise FileError(f"{path}: cannot be used: {problem}")
    return Compiled(
        program,
        Signature(specs),
        trials,
        Source(exported.call, contents.probe),
        constants=contents.constants,
        platform=contents.platform,
        remarks=remarks,
    )


def _serialized(path: str | Path, function: Any, specs: Any, platform: str) -> bytes:
    platforms = None if platform == jax.default_backend() else [platform]
    try:
        return bytes(export.export(jax.jit(function), platforms=platforms)(*specs).serialize())
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'saving a program needs the flatbuffers library: python -m pip install "repjax[files]"'
        ) from error
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: jax.export cannot serialize this program: {error}") from error


def _compiled(
    exported: export.Exported, specs: Any, contents: Contents, options: Options
) -> tuple[jax.stages.Compiled | None, str | None]:
    """The program, compiled with options, and what is wrong with it."""
    given: Any = options or None
    try:
        program = jax.jit(exported.call).lower(*specs).compile(compiler_options=given)
        text = program.as_text() or ""
        if options and not all(call in text for call in contents.calls):
            return program, f"its options have no effect here, no {', '.join(contents.calls)}"
        problem = contents.probe.problem(program, specs, contents.expected)
    except Exception as error:
        return None, f"it does not compile or run here: {in_short(error)}"
    return program, None if problem is None else f"it computes something else here: {problem}"


def _specs(path: str | Path, exported: export.Exported, platform: str) -> Any:
    """The shapes and types of the arguments, on a device of the platform."""
    sharding = None
    if platform != jax.default_backend():
        try:
            device = jax.local_devices(backend=platform)[0]
        except RuntimeError as error:
            here = jax.default_backend()
            raise FileError(f"{path}: holds a program for {platform}, here is {here}") from error
        sharding = jax.sharding.SingleDeviceSharding(device)
    struct: Any = jax.ShapeDtypeStruct
    leaves = [struct(aval.shape, aval.dtype, sharding=sharding) for aval in exported.in_avals]
    args, _ = jax.tree.unflatten(exported.in_tree, leaves)
    return args
