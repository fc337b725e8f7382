"""The file format of compiled programs: a zip archive of JSON, StableHLO and arrays."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from pathlib import Path

import numpy as np

from repjax._files import FileError
from repjax.compiling.compiled import Trial, in_short
from repjax.compiling.probe import Probe
from repjax.compiling.tolerance import Array, Expected

FORMAT = "repjax compiled program"
VERSION = 1


@dataclasses.dataclass(frozen=True)
class Contents:
    """What a file holds.

    Args:
        program: as `jax.export` serializes it.
        trials: what was tried, the chosen candidate among it.
        probe: arguments to check the program with.
        expected: its outputs on them.
        calls: what the compiled program has to call for the options to have their effect.
        platform: "cpu", "gpu", ...
        constants: whether the first argument of the function is baked in.
        jaxlib: version that compiled it.
    """

    program: bytes
    trials: tuple[Trial, ...]
    probe: Probe
    expected: tuple[Expected, ...]
    calls: tuple[str, ...]
    platform: str
    constants: bool
    jaxlib: str


def write(path: Path, contents: Contents) -> None:
    """Write a file in place."""
    about = {
        "format": FORMAT,
        "version": VERSION,
        "jaxlib": contents.jaxlib,
        "platform": contents.platform,
        "constants": contents.constants,
        "calls": contents.calls,
        "trials": [dataclasses.asdict(trial) for trial in contents.trials],
        "roundoff": contents.probe.roundoff,
        "keys": contents.probe.keys,
        "bounded": [one.bound is not None for one in contents.expected],
    }
    arrays = {f"pool{n}": pool for n, pool in enumerate(contents.probe.pools)}
    for n, one in enumerate(contents.expected):
        arrays |= {f"value{n}": one.value, f"ties{n}": one.ties}
        if one.bound is not None:
            arrays[f"bound{n}"] = one.bound
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("about.json", json.dumps(about, indent=1))
        file.writestr("program", contents.program)
        for name, array in arrays.items():
            with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, _storable(array), allow_pickle=False)


def read(path: Path) -> Contents:
    """Read a file.

    Raises:
        FileError: it is damaged or of another kind.
        OSError: it cannot be opened.
    """
    with path.open("rb") as start:
        found = start.read(64)
    if not found.startswith(b"PK"):
        what = f"begins with {found[:8]!r}" if found else "is empty"
        raise FileError(f"{path}: is no compiled program of repjax, it {what}")
    try:
        with zipfile.ZipFile(path) as file:
            return _contents(path, file)
    except FileError:
        raise
    except Exception as error:  # a damaged archive may trip over anything
        raise FileError(f"{path}: is damaged or cut off: {in_short(error)}") from error


def _contents(path: Path, file: zipfile.ZipFile) -> Contents:
    if "about.json" not in file.namelist():
        raise FileError(f"{path}: is a zip archive, but no compiled program of repjax")
    about = json.loads(file.read("about.json"))
    if about.get("format") != FORMAT:
        raise FileError(f"{path}: is no compiled program of repjax: its about.json says otherwise")
    if about["version"] > VERSION:
        found = f"version {about['version']}, this repjax reads {VERSION}"
        raise FileError(f"{path}: was written by a later repjax: {found}")

    def array(name: str) -> Array:
        with file.open(f"{name}.npy") as member:
            read: Array = np.lib.format.read_array(member, allow_pickle=False)
        return read

    keys = tuple(about["keys"])
    pools = tuple(array(f"pool{n}") for n in range(len(keys)))
    expected = [
        Expected(array(f"value{n}"), array(f"bound{n}") if bounded else None, array(f"ties{n}"))
        for n, bounded in enumerate(about["bounded"])
    ]
    return Contents(
        file.read("program"),
        tuple(Trial(**trial) for trial in about["trials"]),
        Probe(pools, keys, float(about["roundoff"])),
        tuple(expected),
        tuple(about["calls"]),
        str(about["platform"]),
        bool(about["constants"]),
        str(about["jaxlib"]),
    )


def _storable(array: Array) -> Array:
    """The array in a type that NumPy has itself; small floats fit into float32."""
    if array.dtype.isbuiltin == 1:
        return array
    return array.astype(np.float32 if np.can_cast(array.dtype, np.float32) else np.int64)
