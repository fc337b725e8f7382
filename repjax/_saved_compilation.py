"""Compiled programs in files: `save_compiled` and `load_compiled`. Nothing is ever unpickled."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export

from repjax._compiled import Compiled, Source, Trial
from repjax._compiler_options import Options, expected_calls
from repjax._files import FileError, check_target, replacing
from repjax._forms import platform_of
from repjax._probe import Probe
from repjax._signature import Signature
from repjax._tolerance import Array, Expected

FORMAT = "repjax compiled program"
VERSION = 1

_DAMAGE = (zipfile.BadZipFile, zlib.error, ValueError, KeyError, TypeError, EOFError, OSError)


def save_compiled(compiled: Compiled, path: str | Path, *, force: bool = False) -> None:
    """Write a compiled function to a file, then read it back and compare before it counts.

    The file is a zip archive: what `jax.export` makes of the chosen form, with baked
    constants; the chosen options; and, for a check, a few numbers of every argument and
    output.

    Args:
        compiled: what `repjax.compile` or `load_compiled` gave.
        path: path of the file.
        force: replace a file that is there already.

    Raises:
        FileExistsError: the file exists, and `force` is false.
        OSError: it cannot be written.
        ValueError: the program or its arguments cannot be serialized, or the program that
            was read back computes something else.
        ModuleNotFoundError: the flatbuffers library is missing.
    """
    check_target(path, force=force)
    signature, source = compiled._signature, compiled._source
    if source is None or not signature.only_arrays:
        raise ValueError(
            "an argument has leaves that are no arrays, which a file cannot keep; bake it in "
            "(constants=True), or compile a function of the arrays alone"
        )
    specs = signature.specs
    program = _serialized(source.function, specs, compiled.platform)
    expected = source.probe.expected(compiled.program, specs)
    text = compiled.program.as_text() or ""
    about = {
        "format": FORMAT,
        "version": VERSION,
        "jaxlib": importlib.metadata.version("jaxlib"),
        "platform": compiled.platform,
        "constants": compiled.constants,
        "calls": [call for call in expected_calls(compiled.platform) if call in text],
        "trials": [dataclasses.asdict(trial) for trial in compiled.trials],
        "roundoff": source.probe.roundoff,
        "keys": source.probe.keys,
        "outputs": ["float" if one.bound is not None else "integer" for one in expected],
    }
    arrays = _arrays(source.probe, expected)
    with replacing(path, force=force) as temporary:
        with zipfile.ZipFile(temporary, "w") as file:
            file.writestr("about.json", json.dumps(about, indent=1))
            file.writestr("program", program)
            for name, array in arrays.items():
                with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, _storable(array), allow_pickle=False)
        load_compiled(temporary)


def load_compiled(path: str | Path) -> Compiled:
    """Read a file of `Compiled.save` and compile it for this machine, with the saved options.

    Options that this jaxlib refuses, or which no longer have their effect, are left out, and
    the result says so when it is printed. On random arguments like those that it was compiled
    with, the program has to give the outputs of the machine that wrote the file, up to
    rounding.

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
    about, exported, arrays = _read(Path(path))
    platform = about["platform"]
    probe = Probe(_numbered(arrays, "pool"), tuple(about["keys"]), about["roundoff"])
    expected = [
        Expected(value, arrays[f"bound{n}"] if kind == "float" else None, arrays[f"ties{n}"])
        for n, (kind, value) in enumerate(
            zip(about["outputs"], _numbered(arrays, "value"), strict=True)
        )
    ]
    specs = _specs(path, exported, platform)
    trials = [Trial(**trial) for trial in about["trials"]]
    chosen = next(trial for trial in trials if trial.verdict == "chosen")
    program, problem = _checked(exported, specs, chosen.options, probe, expected, about["calls"])
    remarks = [f"read from {path}, written with jaxlib {about['jaxlib']}"]
    if problem is not None and chosen.options:
        place = trials.index(chosen)
        trials[place] = dataclasses.replace(chosen, verdict="failed", reason=f"here: {problem}")
        remarks.append(f"compiled without the options of {chosen.name}, which here: {problem}")
        trials.append(Trial("without options", {}, chosen.shifted, "chosen"))
        program, problem = _checked(exported, specs, {}, probe, expected, [])
    if program is None or problem is not None:
        raise FileError(f"{path}: cannot be used here: {problem}")
    return Compiled(
        program,
        Signature(specs),
        trials,
        constants=about["constants"],
        platform=platform_of(program),
        source=Source(exported.call, probe),
        remarks=remarks,
    )


def _serialized(function: Any, specs: Any, platform: str) -> bytes:
    try:
        platforms = None if platform == jax.default_backend() else [platform]
        exported = export.export(jax.jit(function), platforms=platforms)(*specs)
        return bytes(exported.serialize())
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'saving a program needs the flatbuffers library: python -m pip install "repjax[files]"'
        ) from error
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(f"jax.export cannot serialize this program: {error}") from error


def _checked(
    exported: export.Exported,
    specs: Any,
    options: Options,
    probe: Probe,
    expected: Sequence[Expected],
    calls: Sequence[str],
) -> tuple[jax.stages.Compiled | None, str | None]:
    """The program, compiled with options, and what is wrong with it."""
    given: Any = options or None
    try:
        program = jax.jit(exported.call).lower(*specs).compile(compiler_options=given)
        missing = [call for call in calls if call not in (program.as_text() or "")]
        if missing:
            return program, f"have no effect, no {missing[0]} in the program"
        problem = probe.problem(program, specs, expected)
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        return None, f"are refused, {str(error).strip().splitlines()[0]:.100}"
    return program, problem


def _read(path: Path) -> tuple[dict[str, Any], export.Exported, dict[str, Array]]:
    with path.open("rb") as file:
        start = file.read(64)
    if not start.startswith(b"PK"):
        found = f"begins with {start[:8]!r}" if start else "is empty"
        raise FileError(f"{path}: is no compiled program of repjax, it {found}")
    try:
        with zipfile.ZipFile(path) as file:
            names = file.namelist()
            if "about.json" not in names:
                raise FileError(f"{path}: is a zip archive, but no compiled program of repjax")
            about = json.loads(file.read("about.json"))
            if about.get("format") != FORMAT or about.get("version", 0) > VERSION:
                what = f"{about.get('format')!r:.40}, version {about.get('version')!r:.10}"
                raise FileError(f"{path}: expected {FORMAT!r}, version {VERSION}, found {what}")
            serialized = file.read("program")
            arrays = {}
            for name in names:
                if name.endswith(".npy"):
                    with file.open(name) as member:
                        array = np.lib.format.read_array(member, allow_pickle=False)
                    arrays[name.removesuffix(".npy")] = array
    except FileError:
        raise
    except _DAMAGE as error:
        raise FileError(f"{path}: is damaged: {error}") from error
    try:
        return about, export.deserialize(bytearray(serialized)), arrays
    except Exception as error:  # a foreign version of jax may trip over anything
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise FileError(
            f"{path}: jax {jax.__version__} cannot read its program, written with jaxlib "
            f"{about['jaxlib']}: {reason:.200}"
        ) from error


def _specs(path: str | Path, exported: export.Exported, platform: str) -> Any:
    """The shapes and types of the arguments, on a device of the platform."""
    sharding = None
    if platform != jax.default_backend():
        try:
            device = jax.local_devices(backend=platform)[0]
        except RuntimeError as error:
            raise FileError(
                f"{path}: holds a program for {platform}, and this machine has only "
                f"{jax.default_backend()}"
            ) from error
        sharding = jax.sharding.SingleDeviceSharding(device)
    struct: Any = jax.ShapeDtypeStruct
    leaves = [struct(aval.shape, aval.dtype, sharding=sharding) for aval in exported.in_avals]
    args, _ = jax.tree.unflatten(exported.in_tree, leaves)
    return args


def _arrays(probe: Probe, expected: Sequence[Expected]) -> dict[str, Array]:
    found = {f"pool{n}": pool for n, pool in enumerate(probe.pools)}
    for n, one in enumerate(expected):
        found |= {f"value{n}": one.value, f"ties{n}": one.ties}
        if one.bound is not None:
            found[f"bound{n}"] = one.bound
    return found


def _numbered(arrays: dict[str, Array], name: str) -> tuple[Array, ...]:
    count = sum(key.removeprefix(name).isdecimal() for key in arrays if key.startswith(name))
    return tuple(arrays[f"{name}{n}"] for n in range(count))


def _storable(array: Array) -> Array:
    """The array in a type that NumPy has itself; small floats fit into float32."""
    if array.dtype.kind != "V" and array.dtype.isbuiltin == 1:
        return array
    return array.astype(np.float32 if np.can_cast(array.dtype, np.float32) else np.int64)
