"""The four forms: what runs, what is trained, how they agree."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console

import repjax
from experiments.train import forms, log, loop, networks, optimizer
from experiments.train import step as steps
from experiments.train.config import Config, Network, Optimizer
from experiments.train.errors import RunError
from experiments.train.recalibrate import recalibrated
from repjax.torch import files
from tests.evaluate import evaluated
from tests.training.conftest import changed, largest_difference, leaves
from tests.training.network import Theirs

THEIRS = "tests.training.network:theirs"
SIZES = ("depths=(1,)", "widths=(4,)", "strides=(1,)", "stem_strides=2")
NORMALIZE = steps.Normalize((0.4,), (0.3,))
SGD = Optimizer(epochs=1, optimizer="sgd", learning_rate=0.1, nesterov=True, weight_decay=0.01)


@functools.cache
def form_of(form: Any, *more: str, **fields: Any) -> forms.Form:
    """A form with its initial values, each once."""
    settings = Network(form=form, override=(*SIZES, *more), **fields)
    if ":" in settings.network:
        settings = Network(form=form, **fields)
    module = networks.create(settings, 3, 1)
    return forms.make(settings, module, jnp.zeros((1, 8, 8, 1)), seed=0)


def make(form: Any, *more: str, config: Optimizer = SGD, **fields: Any) -> tuple[Any, Any, Any]:
    """A form, its step and its state before the first."""
    one = form_of(form, *more, **fields)
    chain = optimizer.make(config, one, 20)
    return (
        one,
        steps.training_step(config, one, chain, NORMALIZE, seed=0),
        steps.initial_state(config, one, chain),
    )


def batch(seed: int = 0) -> tuple[Any, Any]:
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (6, 8, 8, 1)).astype(np.uint8), random.integers(0, 3, 6)


def test_the_step_has_the_convolutions_of_the_plain_network() -> None:
    counts = {
        form: repjax.count_operations(make(form)[1], make(form)[2], *batch())[
            "conv_general_dilated"
        ]
        for form in ("multi", "plain", "online", "gradient")
    }
    assert counts["plain"] == counts["online"] == counts["gradient"] == 5  # forward, 2 + 1 back
    assert counts["multi"] == 10  # four and four, and two to the stem


def test_gradient_follows_online(x64: None) -> None:
    """Trajectories by Nesterov's momentum with weight decay are equal, kernels folded."""
    online, online_step, one = make("online", "param_dtype=float64")
    _, gradient_step, two = make("gradient", "param_dtype=float64")
    online_step, gradient_step = evaluated(online_step), evaluated(gradient_step)
    begin = two["tree"]["params"]["stem"]["conv"]["kernel"]
    for number in range(6):
        one, _ = online_step(one, *batch(number))
        two, _ = gradient_step(two, *batch(number))
    assert largest_difference(online.variables(one["tree"]), two["tree"]) < 1e-10
    moved = two["tree"]["params"]["stem"]["conv"]["kernel"] - begin
    assert float(jnp.abs(moved).max()) > 0.01


def test_adamw_has_the_factor_after_its_moments() -> None:
    config = Optimizer(epochs=1, optimizer="adamw", weight_decay=0.0, warmup=0.0)
    form, _, state = make("gradient", config=config)
    chain = optimizer.make(config, form, 20)
    params = state["tree"]["params"]
    ones = jax.tree.map(jnp.ones_like, params)
    change, _ = chain.update(ones, chain.init(params), params)
    kernel = np.abs(change["stem"]["conv"]["kernel"])
    np.testing.assert_allclose(kernel[1, 1], 2 * kernel[0, 0], rtol=1e-5)
    assert float(jnp.abs(change["head"]["kernel"]).max()) == pytest.approx(kernel[0, 0].max())


@pytest.mark.parametrize("form", ["multi", "online", "gradient"])
def test_decay_is_of_kernels_alone(form: str) -> None:
    one, _, state = make(form)
    chain = optimizer.make(SGD, one, 20)
    params = state["tree"]["params"]
    zeros = jax.tree.map(jnp.zeros_like, params)
    change, _ = chain.update(zeros, chain.init(params), params)
    for path, leaf in leaves(change).items():
        assert bool(np.abs(leaf).max() > 0) == path.endswith("['kernel']"), path


def test_the_square_of_the_fused_kernels() -> None:
    one, _, state = make("multi")
    fused = repjax.fuse_params(state["tree"])["params"]
    wanted = sum(
        float((fused[name]["conv"]["kernel"] ** 2).sum()) for name in fused if name != "head"
    )
    assert float(steps.kernel_squares(one.tree)) == pytest.approx(wanted, rel=1e-6)
    plain, _, _ = make("plain")
    names = ("stem", "stage1_block0")
    kernels = [plain.tree["params"][name]["conv"]["kernel"] for name in names]
    squares = sum(float((kernel**2).sum()) for kernel in kernels)
    assert float(steps.kernel_squares(plain.tree)) == pytest.approx(squares, rel=1e-6)


def test_the_moving_average_begins_quickly() -> None:
    tree, before = {"a": jnp.ones(2)}, {"a": jnp.zeros(2)}
    first = steps.averaged(0.99, before, tree, jnp.int32(0))
    assert first["a"].tolist() == pytest.approx([0.9, 0.9])
    late = steps.averaged(0.99, before, tree, jnp.int32(10**6))
    assert late["a"].tolist() == pytest.approx([0.01, 0.01])


def test_the_schedule_rises_and_falls() -> None:
    rate = optimizer.schedule(Optimizer(epochs=4, learning_rate=0.5, warmup=1.0), 10)
    assert float(rate(10)) == pytest.approx(0.5)
    assert float(rate(40)) == pytest.approx(0.0)
    assert 0 < float(rate(0)) < float(rate(5)) < float(rate(10)) > float(rate(25))


def test_recalibrated_statistics_are_those_of_the_batches() -> None:
    module = Theirs(3)
    x = jax.random.normal(jax.random.key(0), (2, 6, 8, 8, 1))
    form = forms.Form("plain", module, dict(module.init(jax.random.key(1), x[0])))
    found = recalibrated(form, form.tree, iter([(x[0],), (x[1],)]), None)["batch_stats"]
    wanted = [nn_stats(module, form.tree, images) for images in x]
    mean = jax.tree.map(lambda *both: sum(both) / 2, *wanted)
    assert largest_difference(found, mean) < 1e-4


def nn_stats(module: Theirs, tree: Any, images: jax.Array) -> Any:
    """Statistics of one batch: of the running ones that begin at zero, the part that is new."""
    zeros = jax.tree.map(jnp.zeros_like, tree["batch_stats"])
    _, new = module.apply({**tree, "batch_stats": zeros}, images, True, mutable=["batch_stats"])
    return jax.tree.map(lambda leaf: leaf / 0.2, new["batch_stats"])


def test_bfloat16_computes_and_float32_keeps() -> None:
    _, step, state = make("online", dtype="bfloat16")
    program = str(jax.make_jaxpr(step)(state, *batch()))
    lines = [line for line in program.splitlines() if "= conv_general_dilated[" in line]
    assert len(lines) == 5
    assert all(":bf16[" in line for line in lines)
    new, metrics = jax.eval_shape(step, state, *batch())
    assert {leaf.dtype for leaf in jax.tree.leaves(new["tree"])} == {jnp.dtype("float32")}
    assert metrics["loss"].dtype == jnp.float32
    with pytest.raises(RunError, match="has no field dtype"):
        make("plain", network=THEIRS, dtype="bfloat16")


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(RunError, match="has no blocks with branches; --form plain"):
        make("multi", network=THEIRS)
    with pytest.raises(RunError, match=r"both trained and multiplied"):
        make("gradient", network=THEIRS, branches="orepa")
    with pytest.raises(RunError, match="--branches dbb: expected repvgg, orepa or"):
        make("online", network=THEIRS, branches="dbb")
    with pytest.raises(RunError, match=r"network:number: branches: expected a tuple"):
        make("online", network=THEIRS, branches="tests.training.network:number")
    with pytest.raises(RunError, match="number: expected a Flax module, or a function"):
        make("plain", network="tests.training.network:number")
    with pytest.raises(RunError, match="--override is for networks of repjax"):
        networks.create(Network(network=THEIRS, override=("a=1",)), 3, 1)
    settings = Network(override=SIZES)
    module = networks.create(settings, 3, 3)
    with pytest.raises(RunError, match=r"takes \(batch..., height, width, 3\)"):
        forms.make(settings, module, jnp.zeros((1, 8, 8, 1)), seed=0)


def test_another_network_from_beginning_to_end(config: Config, tmp_path: Path) -> None:
    """OREPA's branches beside the kernels of a foreign network; the same network comes back."""
    settings = changed(
        config,
        network={"network": THEIRS, "override": (), "form": "online", "branches": "orepa"},
        optimizer={"average": 0.0, "equivalent_decay": 1e-3, "label_smoothing": 0.1},
        run={"output": tmp_path, "profile": True, "save_every": 0},
        finish={"weights": "best", "recalibrate": 3},
    )
    result = loop.run(settings, console=Console(quiet=True))
    assert result["verified"]
    assert result["flipped"] == []
    assert result["test_accuracy"] == result["test_accuracy_fused"] > 0.34
    assert result["convolutions"] == [2, 2]
    assert json.loads((tmp_path / "result.json").read_text()) == result
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
    assert [r["epoch"] for r in log.read(tmp_path / "metrics.jsonl") if "watched_loss" in r] == [
        1,
        2,
    ]
    shapes = jax.eval_shape(Theirs(10).init, jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    wanted = {
        "/".join(e.key for e in path): leaf.shape
        for path, leaf in jax.tree_util.tree_flatten_with_path(shapes)[0]
    }
    found = files.read(tmp_path / "trained.safetensors")
    assert {name: found[name].shape for name in found} == wanted


def test_optax_is_what_moves() -> None:
    """Without momentum and decay, plain takes steps of gradient descent."""
    config = Optimizer(epochs=1, optimizer="sgd", momentum=0.0, weight_decay=0.0, warmup=0.0)
    one, _, state = make("plain", config=config)
    chain = optimizer.make(config, one, 20)
    params = state["tree"]["params"]
    ones = jax.tree.map(jnp.ones_like, params)
    change, _ = chain.update(ones, chain.init(params), params)
    assert largest_difference(change, optax.tree.scale(-config.learning_rate, ones)) < 1e-6
