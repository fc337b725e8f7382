"""Candidates are compiled, checked against plain and timed; the best is kept, or plain."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import repjax
from repjax.compiling import contest, forms, measured, timing
from repjax.compiling.candidates import Candidate, candidates
from repjax.compiling.options import NO_YNNPACK, compiler_options

SHIFTED = Candidate("shifted", {}, shifted=True)


def conv(x, kernel, groups=1):
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=numbers, feature_group_count=groups
    )


def network(variables, x):
    y = jax.nn.relu(conv(x, variables["full"]) + variables["bias"])
    return {"logits": conv(y, variables["thin"], 4).mean((1, 2)), "top": jnp.argmax(y, -1)}


def drawn(dtype=jnp.float32):
    rng = np.random.default_rng(0)
    shapes = {"full": (3, 3, 4, 4), "thin": (3, 3, 1, 4), "bias": (4,)}
    variables = {k: jnp.asarray(rng.normal(size=s), dtype) for k, s in shapes.items()}
    return variables, jnp.asarray(rng.normal(size=(1, 6, 6, 4)), dtype)


def same(one, two, tolerance=1e-5):
    assert jax.tree.structure(one) == jax.tree.structure(two)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, tolerance, tolerance)


@pytest.fixture
def tried(monkeypatch):
    """Sets the candidates, and what their calls take in the end, plain first."""

    def only(*found, seconds=None):
        monkeypatch.setattr(measured, "candidates", lambda platform, depthwise: list(found))
        if seconds is not None:
            monkeypatch.setattr(contest, "alternate", lambda calls, budget: list(seconds))
            monkeypatch.setattr(contest, "HOPELESS", 1e9)

    return only


def verdicts(compiled):
    return {trial.name: trial.verdict for trial in compiled.trials}


def test_all_candidates_of_a_depthwise_network_compute_the_same():
    variables, x = drawn()
    lines = []
    found = repjax.compile(network, variables, x, progress=lines.append)
    expected = ["plain", *(one.name for one in candidates("cpu", depthwise=True))]
    assert [trial.name for trial in found.trials] == expected
    assert set(verdicts(found).values()) <= {"chosen", "slower"}
    assert all(trial.milliseconds > 0 and trial.compile_seconds > 0 for trial in found.trials)
    same(network(variables, x), found(variables, x))
    assert len(lines) == len(expected)
    assert not any("\n" in line for line in lines)
    assert found.platform == "cpu"


def test_which_candidates_there_are():
    def names(*args):
        return [one.name for one in candidates(*args)]

    options = compiler_options("cpu")
    best = ["compiler_options()"] if options else []
    assert names("cpu", False) == [*best, "no YNNPACK fusion"]
    assert names("gpu", False) == []
    assert names("gpu", True) == ["shifted"]
    found = {one.name: one for one in candidates("cpu", True)}
    assert len(found) == (6 if options else 4) - 1
    assert found["no YNNPACK fusion, shifted"].options == NO_YNNPACK
    assert found["no YNNPACK fusion, shifted"].shifted


def test_a_faster_candidate_is_chosen(tried):
    variables, x = drawn()
    tried(SHIFTED, seconds=[2e-3, 1e-3])
    found = repjax.compile(network, variables, x)
    assert verdicts(found) == {"plain": "slower", "shifted": "chosen"}
    assert found.shifted
    assert found.options == {}
    assert found.chosen.ratio == pytest.approx(2.0)
    assert found.trials[0].milliseconds == pytest.approx(2.0)
    assert "feature_group_count" not in found.program.as_text()
    same(network(variables, x), found(variables, x))


def test_plain_is_kept_when_the_lead_is_small(tried):
    tried(SHIFTED, seconds=[1e-3, 0.98e-3])
    found = repjax.compile(network, *drawn())
    assert verdicts(found) == {"plain": "chosen", "shifted": "slower"}
    assert "1.03 times" in found.trials[1].reason
    assert not found.shifted


def test_hopeless_candidates_are_not_timed_with_the_others(tried, monkeypatch):
    tried(SHIFTED)
    times = iter([[1.0], [2.0]])
    monkeypatch.setattr(contest, "few", lambda call: next(times))
    monkeypatch.setattr(contest, "alternate", lambda calls, budget: pytest.fail("timed"))
    found = repjax.compile(network, *drawn())
    assert verdicts(found) == {"plain": "chosen", "shifted": "slower"}
    assert found.trials[1].ratio == pytest.approx(0.5)


def test_a_made_up_option_falls_back(tried):
    variables, x = drawn()
    tried(Candidate("made up", {"xla_made_up": True}))
    found = repjax.compile(network, variables, x)
    assert verdicts(found) == {"plain": "chosen", "made up": "failed"}
    assert "xla_made_up" in found.trials[1].reason
    assert "made up" in repr(found)
    same(network(variables, x), found(variables, x))


def test_wrong_outputs_never_win(tried, monkeypatch):
    def wrong(fn):
        def other(variables, x):
            return jax.tree.map(lambda y: y + y.dtype.type(1), fn(variables, x))

        return other

    monkeypatch.setattr(forms, "shift_depthwise", wrong)
    tried(SHIFTED, seconds=[2.0, 1.0])
    found = repjax.compile(network, *drawn())
    assert verdicts(found) == {"plain": "chosen", "shifted": "differs"}
    assert "4 of 4 numbers differ" in found.trials[1].reason


@pytest.mark.parametrize("budget", [0.0, 5.0])
def test_out_of_time(monkeypatch, budget):
    clock = itertools.count(step=1.0)
    monkeypatch.setattr(timing, "_clock", lambda: float(next(clock)))
    found = repjax.compile(network, *drawn(), time_budget=budget)
    assert verdicts(found).pop("plain") == "chosen"
    assert {trial.verdict for trial in found.trials[1:]} == {"not tried"}
    assert {trial.reason for trial in found.trials[1:]} == {"out of time"}
    assert found.chosen.milliseconds == pytest.approx(1e3)


def test_a_budget_between_candidates(monkeypatch):
    """Every reading of the clock is a second: plain takes ten, a candidate as much again."""
    clock = itertools.count(step=1.0)
    monkeypatch.setattr(timing, "_clock", lambda: float(next(clock)))
    found = repjax.compile(network, *drawn(), time_budget=25.0)
    states = [trial.verdict == "not tried" for trial in found.trials]
    assert states == sorted(states)
    assert not states[1]
    assert states[-1]
    assert next(clock) < 50


def test_constants_are_baked_in():
    variables, x = drawn()
    found = repjax.compile(network, variables, x, constants=True)
    same(network(variables, x), found(x))
    assert found.constants
    assert len(found.signature.specs) == 1
    assert "first argument baked in" in repr(found)
    with pytest.raises(TypeError, match="compiled for 1 argument, called with 2"):
        found(variables, x)


def test_the_tolerance_of_baked_constants_is_that_of_free_ones(tried):
    """Only integers are left to move: what rounding does is seen on the constants."""
    rng = np.random.default_rng(0)
    shapes = {"words": (9, 6, 4), "kernel": (3, 1, 4), "mix": (4, 300)}
    variables = {k: jnp.asarray(rng.normal(size=s), jnp.float32) for k, s in shapes.items()}

    def net(variables, tokens):
        y = jax.lax.conv_general_dilated(
            *(variables["words"][tokens], variables["kernel"], (1,), "SAME"),
            dimension_numbers=("NWC", "WIO", "NWC"),
            feature_group_count=4,
        )
        return (jnp.sin(y) @ variables["mix"]).sum(-1)

    tried(SHIFTED, seconds=[2.0, 1.0])
    found = repjax.compile(net, variables, jnp.arange(9), constants=True)
    assert verdicts(found) == {"plain": "slower", "shifted": "chosen"}


def test_a_training_step(tried):
    variables, x = drawn()
    tried(*candidates("cpu", depthwise=True)[:2])

    @jax.jit
    def step(state, x, key):
        def loss(variables):
            noise = jax.random.normal(key, x.shape)
            return jnp.sum(network(variables, x + noise)["logits"] ** 2)

        value, slopes = jax.value_and_grad(loss)(state["variables"])
        moved = jax.tree.map(lambda v, g: v - 0.1 * g, state["variables"], slopes)
        state = {"variables": moved, "count": state["count"] + 1}
        return state, value, jax.random.split(key)[0]

    state = {"variables": variables, "count": jnp.zeros((), jnp.int32)}
    key = jax.random.key(3, impl="rbg")
    found = repjax.compile(step, state, x, key)
    assert "differs" not in verdicts(found).values()
    assert "failed" not in verdicts(found).values()
    expected, came = step(state, x, key), found(state, x, key)
    same(expected[:2], came[:2])
    assert jnp.array_equal(*map(jax.random.key_data, (expected[2], came[2])))
    found(came[0], x, came[2])


def test_half_precision():
    variables, x = drawn(jnp.bfloat16)
    found = repjax.compile(network, variables, x)
    assert "differs" not in verdicts(found).values()
    same(network(variables, x)["logits"], found(variables, x)["logits"], 0.05)


def test_leaves_that_are_no_arrays_belong_to_the_program():
    variables, x = drawn()
    settings = {"activation": jax.nn.relu, "power": 2}

    def net(settings, variables, x):
        return settings["activation"](conv(x, variables["full"])) ** settings["power"]

    found = repjax.compile(net, settings, variables, x)
    same(net(settings, variables, x), found(settings, variables, x))
    with pytest.raises(
        TypeError, match=r"argument 0 at \['power'\]: compiled for 2, called with 3"
    ):
        found({**settings, "power": 3}, variables, x)
    with pytest.raises(TypeError, match=r"argument 2: compiled for float32\[1, 6, 6, 4\]"):
        found(settings, variables, x[:, :5])


def test_functions_without_arguments_or_outputs():
    assert repjax.compile(lambda: jnp.arange(3))().tolist() == [0, 1, 2]
    assert repjax.compile(lambda x: (), jnp.ones(3))(jnp.ones(3)) == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v, x: (v,), "compiled for 2 arguments, called with 1"),
        (
            lambda v, x: (v, x[:, :5]),
            r"argument 1: compiled for float32\[1, 6, 6, 4\], called with float32\[1, 5, 6, 4\]",
        ),
        (lambda v, x: (v, x.astype(jnp.bfloat16)), r"float32.*, called with bfloat16"),
        (
            lambda v, x: ({k: v[k] for k in ("full", "thin")}, x),
            r"argument 0 at \['bias'\]: compiled for float32\[4\], called with nothing",
        ),
        (lambda v, x: ({**v, "new": x}, x), r"at \['new'\]: compiled for nothing, called with f"),
        (lambda v, x: (v, "image"), "argument 1: compiled for .*, called with 'image'"),
        (lambda v, x: (list(v.values()), x), "other arguments than those compiled for"),
        (lambda v, x: (v, 1.0), "argument 1: .*called with 1.0"),
    ],
)
def test_other_arguments(change, message):
    compiled = _network()
    with pytest.raises(TypeError, match=message) as caught:
        compiled(*change(*drawn()))
    assert "repjax.compile" in str(caught.value)
    assert len(str(caught.value).splitlines()) < 10


@functools.cache
def _network():
    return repjax.compile(network, *drawn(), time_budget=0.0)


def test_numpy_arrays_are_arrays():
    variables, x = drawn()
    came = _network()(jax.tree.map(np.asarray, variables), np.asarray(x))
    same(network(variables, x), came)


def test_it_is_not_for_transformations():
    with pytest.raises(TypeError, match="transformation"):
        jax.jit(_network())(*drawn())
    with pytest.raises(TypeError, match=r"argument 0 \['w'\]: compile .* values, found ShapeDtype"):
        repjax.compile(lambda t: t["w"], {"w": jax.ShapeDtypeStruct((1,), jnp.float32)})
    with pytest.raises(TypeError, match="needs values"):
        jax.jit(lambda x: repjax.compile(jnp.sin, x)(x))(1.0)
    with pytest.raises(TypeError, match="there is none"):
        repjax.compile(lambda: 1, constants=True)


def test_an_error_of_the_function_is_its_own():
    def broken(x):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        repjax.compile(broken, jnp.ones(3))


def test_it_prints_as_a_table(tried):
    tried(SHIFTED, Candidate("made up", {"xla_made_up": True}), seconds=[2e-3, 1e-3])
    found = repjax.compile(network, *drawn())
    lines = repr(found).splitlines()
    assert lines[0] == "compiled for cpu: shifted, 2.00 times as fast as plain"
    assert lines[1].split() == ["candidate", "ms", "plain/it"]
    assert lines[2].split() == ["plain", "2.000", "1.00", "slower"]
    assert lines[3].split() == ["*", "shifted", "1.000", "2.00", "chosen"]
    assert lines[4].split()[:3] == ["made", "up", "failed:"]
    assert len(lines) == 5


def test_timing_alternates_within_a_budget(monkeypatch):
    now, order = [0.0], []
    monkeypatch.setattr(timing, "_clock", lambda: now[0])

    def call(name, seconds):
        order.append(name)
        now[0] += seconds

    calls = [functools.partial(call, "a", 1.0), functools.partial(call, "b", 0.5)]
    assert timing.alternate(calls, timing.Budget(100.0)) == [1.0, 0.5]
    assert order == ["a", "b"] * 4
    order.clear()
    assert timing.alternate(calls, timing.Budget(2.0)) == [1.0, 0.5]
    assert order == ["a", "b"] * 2
    assert timing.alternate(calls, timing.Budget(0.0)) == []
