"""What the benchmarks count, on networks counted by hand; what they write, on tiny ones."""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import _programs, _tables, benchmark, peers, timing
from experiments._contestants import Entry
from experiments._work import work
from experiments._worker import PREPARE, Worker
from experiments.networks import Row


def struct(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def conv(x, kernel, strides=1, groups=1):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (strides, strides),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def network(kernels, x):
    x = jax.nn.relu(conv(x, kernels[0]))
    x = jax.jit(lambda x: conv(x, kernels[1], strides=2, groups=8))(x)
    return x.mean((1, 2)) @ kernels[2]


KERNELS = [struct(3, 3, 3, 8), struct(3, 3, 1, 8), struct(8, 5)]


def test_the_work_of_a_network_by_hand():
    found = work(network, KERNELS, struct(2, 8, 8, 3))
    assert found.convolutions == 2
    dense, depthwise, head = 2 * 64 * 8 * 27, 2 * 16 * 8 * 9, 2 * 8 * 5
    assert found.flops == 2 * (dense + depthwise + head)
    elements = (2 * 64 * 3 + 27 * 8 + 2 * 64 * 8) + (2 * 64 * 8 + 9 * 8 + 2 * 16 * 8)
    assert found.bytes == 4 * (elements + 2 * 8 + 8 * 5 + 2 * 5)


def test_the_work_of_loops_and_branches_and_gradients():
    x, kernel = struct(1, 4, 4, 6), struct(1, 1, 6, 6)
    once = work(conv, x, kernel)

    def thrice(x, kernel):
        return jax.lax.scan(lambda x, _: (conv(x, kernel), None), x, length=3)[0]

    def either(x, kernel):
        twice = lambda: conv(conv(x, kernel), kernel)  # noqa: E731
        return jax.lax.cond(x[0, 0, 0, 0] > 0, twice, lambda: conv(x, kernel))

    def loss(x, kernel):
        return jnp.sum(conv(x, kernel) ** 2)

    assert work(thrice, x, kernel) == tuple(3 * number for number in once)
    assert work(either, x, kernel) == tuple(2 * number for number in once)
    # the output, the gradient of the data and the gradient of the kernel
    gradients = work(jax.grad(loss, argnums=(0, 1)), x, kernel)
    assert (gradients.convolutions, gradients.flops) == (3, 3 * once.flops)
    assert once.flops == 2 * 16 * 6 * 6


def tiny():
    return Row(features=4, length=2)


def test_benchmark_of_a_users_network(tmp_path: Path):
    config = benchmark.Config(
        models=("tests.test_benchmark:tiny",),
        tasks=("inference", "training"),
        options=("default", "best", "constants"),
        batches=(2,),
        sizes=(5,),
        repeats=5,
        budget=0.0,
        output=tmp_path,
    )
    rows = benchmark.main(config)
    inference = [row for row in rows if row["task"] == "inference"]
    counted = {(row["form"], row["convolutions"]) for row in inference}
    assert counted == {("native", 4), ("fused", 2), ("fused by tracing", 2)}
    assert [row["options"] for row in inference if row["form"] == "native"] == ["default", "best"]
    assert {row["options"] for row in inference if row["form"] == "fused"} == set(config.options)
    native = next(row for row in inference if row["form"] == "native")
    macs = 2 * 2 * 25 * 4 * (9 * 4 + 4)
    assert native["gigaflops"] == pytest.approx(2 * macs / 1e9)
    assert all(row["difference"] < 1e-5 for row in rows)
    assert {row["form"] for row in rows[len(inference) :]} == {
        "native",
        "through the fold",
        "plain",
    }
    written = json.loads((tmp_path / "benchmark.json").read_text())
    assert len(written["rows"]) == len(rows)
    assert written["environment"]["jax"] == jax.__version__
    page = (tmp_path / "benchmark.md").read_text()
    assert page.count("| tests.test_benchmark:tiny |") == len(rows)
    assert (tmp_path / "benchmark.png").stat().st_size > 10_000


def test_the_first_network_of_each_family():
    found = _programs.families()
    assert {"repvgg_a0", "mobileone_s0", "fastvit_t8"} <= set(found)
    assert "repvgg_a1" not in found


@pytest.mark.parametrize(
    ("name", "words"),
    [("repvg_a0", "repvgg_a0"), ("no_module:f", "no_module"), ("tests.test_benchmark:f", "'f'")],
)
def test_a_network_that_is_not_there_is_one_line(name: str, words: str):
    with pytest.raises(SystemExit, match=words):
        _programs.model_named(name)


def test_a_table_leaves_out_what_a_row_lacks():
    columns = (("name", "name", ""), ("ms", "milliseconds", ".1f"))
    rows = [{"name": "a", "milliseconds": 1.25}, {"name": "b", "milliseconds": None}]
    lines = _tables.markdown(rows, columns).splitlines()
    assert lines == ["| name | ms |", "| --- | ---: |", "| a | 1.2 |", "| b |  |"]


class Told:
    """A worker whose calls take what it is told."""

    def __init__(self, *seconds):
        self.times = list(seconds)

    def seconds(self):
        return self.times.pop(0)


def test_peers_take_turns_and_are_compared_round_by_round():
    config = peers.Config(rounds=3, pause=0.0)
    times = peers.turns([Told(1.0, 2.0, 10.0), Told(2.0, 6.0, 20.0)], config)
    assert times.shape == (2, 3)
    assert peers.ratio(times[1], times, ["repjax", "torch"], "repjax") == 2.0
    assert peers.ratio(times[1], times, ["jax.jit", "torch"], "repjax") is None
    rows = [{"contestant": "torch", "times_ours": value} for value in (0.5, 2.0, 8.0)]
    assert peers.geometric_means(rows) == {"torch": pytest.approx(2.0)}


def test_a_peer_that_ends_says_why(tmp_path: Path):
    entry = Entry("nobody", "repvgg_a0", 1, 32, "float32", "inference", "fused", 1, "x", 1.0)
    worker = Worker(entry, sys.executable, tmp_path / "nobody.log")
    with pytest.raises(RuntimeError, match="nobody: KeyError"):
        worker.answer()
    worker.close()


@pytest.mark.slow
def test_peers_agree(tmp_path: Path):
    pytest.importorskip("torch")
    pytest.importorskip("timm")
    config = peers.Config(
        networks=("repvgg_a0",),
        batches=(1,),
        size=64,
        contestants=("repjax", "jax.jit", "torch"),
        rounds=5,
        budget=0.0,
        folder=tmp_path,
        output=tmp_path,
    )
    rows = peers.main(config)
    assert [row["contestant"] for row in rows] == ["repjax", "jax.jit", "torch"]
    assert all(row["difference"] < 1e-4 for row in rows)
    assert np.isfinite([row["times_ours"] for row in rows]).all()


def test_options_by_name():
    assert timing.option_names()[0] == timing.DEFAULT
    assert PREPARE not in peers.Config().contestants


def test_rows_of_an_earlier_run_are_kept_and_those_measured_anew_replaced(tmp_path: Path):
    def write(environment, *rows):
        _tables.write(
            tmp_path,
            "some",
            environment,
            rows,
            (("batch", "batch", "d"), ("ms", "ms", ".0f")),
            lambda rows: _tables.Figure(),
            keep=("batch",),
        )
        return json.loads((tmp_path / "some.json").read_text())["rows"]

    write({"jax": "1"}, {"batch": 1, "ms": 3.0}, {"batch": 2, "ms": 5.0})
    rows = write({"jax": "1"}, {"batch": 2, "ms": 4.0})
    assert [(row["batch"], row["ms"]) for row in rows] == [(1, 3.0), (2, 4.0)]
    assert "| 2 | 4 | 1 |" in (tmp_path / "some.md").read_text()
    with pytest.raises(SystemExit, match="jax 1 are there"):
        write({"jax": "2"}, {"batch": 2, "ms": 4.0})
