"""Compiled programs are saved, read and checked; damaged and foreign files give one line."""

from __future__ import annotations

import dataclasses
import json
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import repjax
from repjax._files import FileError
from repjax.compiling import contest, measured, program_file
from repjax.compiling.candidates import Candidate
from repjax.compiling.saving import load_compiled
from tests.test_compile import conv, drawn, network, same


def function(variables, key, x):
    y = network(variables, x)
    return y | {"noise": jax.random.normal(key, (3,)), "key": key, "half": x.astype(jnp.bfloat16)}


@pytest.fixture(scope="module")
def arguments():
    variables, x = drawn()
    return variables, jax.random.key(0), x


@pytest.fixture(scope="module")
def compiled(arguments):
    """The shifted form, made to win."""
    with pytest.MonkeyPatch.context() as patch:
        shifted = Candidate("shifted", {}, shifted=True)
        patch.setattr(measured, "candidates", lambda platform, depthwise: [shifted])
        patch.setattr(contest, "alternate", lambda calls, budget: [2e-3, 1e-3])
        return repjax.compile(function, *arguments)


@pytest.fixture(scope="module")
def written(compiled, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "network.repjax"
    compiled.save(path)
    return path


@pytest.fixture
def changed(written, tmp_path):
    """Writes the file with other contents."""

    def change(**fields):
        path = tmp_path / "changed.repjax"
        program_file.write(path, dataclasses.replace(program_file.read(written), **fields))
        return path

    return change


def data(tree):
    def keys(leaf):
        return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)

    return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if keys(leaf) else leaf, tree)


def test_round_trip(compiled, written, arguments, tmp_path):
    found = load_compiled(written)
    variables, _, x = arguments
    fresh = (jax.tree.map(lambda v: 2 * v, variables), jax.random.key(5), x + 1)
    for args in (arguments, fresh):
        same(data(function(*args)), data(found(*args)))
    assert found.shifted
    assert found.chosen == compiled.chosen
    assert repr(found).startswith(repr(compiled))
    assert "read from a file, written with jaxlib" in repr(found)
    with pytest.raises(TypeError, match=r"argument 2: compiled for float32\[1, 6, 6, 4\]"):
        found(*arguments[:2], x[:, :3])
    again = tmp_path / "again.repjax"
    found.save(again)
    same(data(function(*fresh)), data(load_compiled(again)(*fresh)))


def test_baked_constants_are_in_the_file(arguments, tmp_path):
    variables, _, x = arguments
    found = repjax.compile(network, variables, x, constants=True)
    found.save(tmp_path / "baked")
    loaded = load_compiled(str(tmp_path / "baked"))
    assert loaded.constants
    same(found(x - 1), loaded(x - 1))


def test_existing_files_are_kept(compiled, written):
    before = written.read_bytes()
    with pytest.raises(FileExistsError):
        compiled.save(written)
    assert written.read_bytes() == before
    compiled.save(written, force=True)
    load_compiled(written)
    assert [path.name for path in written.parent.iterdir()] == [written.name]


def chosen(options, name="no YNNPACK fusion"):
    return (
        repjax.compiling.compiled.Trial("plain", {}, False, "slower"),
        repjax.compiling.compiled.Trial(name, options, True, "chosen"),
    )


def test_options_that_are_refused_here(changed, arguments):
    path = changed(trials=chosen({"xla_made_up": True}, "made up"))
    found = load_compiled(path)
    assert found.options == {}
    assert found.shifted
    assert [trial.verdict for trial in found.trials] == ["slower", "failed", "chosen"]
    assert "compiled without the options of made up: it does not compile" in repr(found)
    same(data(function(*arguments)), data(found(*arguments)))


def test_options_without_their_effect(changed, arguments):
    path = changed(trials=chosen({}), calls=("__no_such_call",))
    assert load_compiled(path).options == {}  # nothing was expected of no options
    options = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INVALID"}
    found = load_compiled(changed(trials=chosen(options), calls=("__no_such_call",)))
    assert found.options == {}
    assert "no effect here, no __no_such_call" in repr(found)
    kept = load_compiled(changed(trials=chosen(options)))
    assert kept.options == options
    assert kept.remarks[1:] == ()


@pytest.mark.parametrize("place", [0, 2])
def test_other_outputs_are_refused(written, changed, place):
    expected = list(program_file.read(written).expected)
    assert [one.bound is None for one in expected] == [False, True, False, False, True]
    value = expected[place].value
    expected[place] = dataclasses.replace(expected[place], value=value + value.dtype.type(50))
    with pytest.raises(FileError, match=f"computes something else here: output {place}: "):
        load_compiled(changed(expected=tuple(expected)))


def test_another_platform(changed):
    with pytest.raises(FileError, match="holds a program for tpu, here is cpu"):
        load_compiled(changed(platform="tpu"))


def test_a_program_that_this_jax_cannot_read(changed):
    with pytest.raises(FileError, match=r"cannot read its program, written with jaxlib 99\.0"):
        load_compiled(changed(program=b"nonsense", jaxlib="99.0"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"hello", "is no compiled program of repjax, it begins with b'hello'"),
        (b"\x80\x04cos\nsystem", "is no compiled program"),
        (b"PK\x03\x04 and nothing else", "is damaged or cut off"),
    ],
)
def test_foreign_files(tmp_path, content, message):
    path = tmp_path / "foreign"
    path.write_bytes(content)
    with pytest.raises(FileError, match=message) as caught:
        load_compiled(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_foreign_archives(written, tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, a=np.ones(2))
    with pytest.raises(FileError, match="a zip archive, but no compiled program"):
        load_compiled(path)
    for about, message in [
        ({"format": "another"}, "is no compiled program"),
        ({"format": program_file.FORMAT, "version": 99}, "written by a later repjax: version 99"),
        ({"format": program_file.FORMAT, "version": 1}, "is damaged or cut off: KeyError"),
        ([], "is damaged or cut off"),
    ]:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("about.json", json.dumps(about))
        with pytest.raises(FileError, match=message):
            load_compiled(path)
    with pytest.raises(FileNotFoundError):
        load_compiled(tmp_path / "nothing")
    with pytest.raises(TypeError, match="expected a path"):
        load_compiled(3)


def test_damaged_files(written, tmp_path):
    content = written.read_bytes()
    path = tmp_path / "damaged"
    for end in np.linspace(4, len(content) - 1, 12).astype(int):
        path.write_bytes(content[:end])
        with pytest.raises(FileError):
            load_compiled(path)
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(written) as file:
        places = [file.getinfo(name) for name in ("about.json", "program", "pool0.npy")]
    for info in places:  # one byte anywhere in the contents
        for place in info.header_offset + 64 + rng.integers(0, info.file_size - 34, 4):
            damaged = bytearray(content)
            damaged[place] ^= 0xFF
            path.write_bytes(bytes(damaged))
            with pytest.raises(FileError, match="is damaged or cut off") as caught:
                load_compiled(path)
            assert len(str(caught.value).splitlines()) == 1


def test_nothing_is_unpickled(written, tmp_path):
    path = tmp_path / "evil"
    with zipfile.ZipFile(written) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            if name != "pool0.npy":
                new.writestr(name, old.read(name))
        with new.open("pool0.npy", "w") as member:
            np.lib.format.write_array(member, np.asarray([{}]), allow_pickle=True)
    with pytest.raises(FileError, match="allow_pickle=False"):
        load_compiled(path)


def test_what_cannot_be_saved(tmp_path):
    _, x = drawn()
    act = repjax.compile(lambda settings, x: settings["act"](x), {"act": jax.nn.relu}, x)
    with pytest.raises(ValueError, match=r"leaves that are no arrays.*constants=True"):
        act.save(tmp_path / "act")

    def called(x):
        return jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    host = repjax.compile(called, x)
    with pytest.raises(ValueError, match=r"jax\.export cannot serialize"):
        host.save(tmp_path / "host")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_reads_back_otherwise_is_not_written(compiled, tmp_path, monkeypatch):
    wrong = dataclasses.replace(compiled.source, function=lambda v, k, x: function(v, k, x + 1))
    monkeypatch.setattr(compiled, "source", wrong)
    with pytest.raises(FileError, match="computes something else here"):
        compiled.save(tmp_path / "wrong")
    assert list(tmp_path.iterdir()) == []


def test_arguments_of_a_check_are_like_those_compiled_for(compiled):
    probe, specs = compiled.source.probe, compiled.signature.specs
    variables, key, x = probe.arguments(specs)
    for name, kernel in drawn()[0].items():
        assert variables[name].shape == kernel.shape
        assert np.isin(variables[name], kernel).all()
    assert jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    assert len(np.unique(x)) > 50
    same(variables, probe.arguments(specs)[0], 0)


def test_large_arrays_are_checked_by_a_sample(tmp_path):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 50, 50, 4)), jnp.float32)
    found = repjax.compile(lambda x, k: conv(x, k), x, jnp.ones((1, 1, 4, 4)), time_budget=0.0)
    found.save(tmp_path / "large")
    assert (tmp_path / "large").stat().st_size < 60_000
    contents = program_file.read(tmp_path / "large")
    assert contents.expected[0].value.size == 1024
    assert contents.probe.pools[0].size == 256
