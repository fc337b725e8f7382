"""Branches by themselves, through the fold, and as multiplied gradients: one training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import repjax
from repjax.optim import branch_gradient
from tests.evaluate import evaluated
from tests.training.kernels import (
    close,
    constants,
    drawn,
    images,
    run_native,
    run_plain,
    variables,
    widened,
)

RULES = {"sgd": (0.0, 0.0), "momentum": (0.9, 0.0), "nesterov": (0.9, 1.0)}


class Forms:
    """The three forms on the same kernels of that many axes."""

    def __init__(self, dims: int) -> None:
        self.kernels = drawn(dims)
        self.plain, self.x = variables(self.kernels), images(self.kernels)
        self.wide = widened(self.kernels, self.plain)
        self.others = {name: part for name, part in self.wide.items() if name != "params"}
        self.transform = branch_gradient(self.wide, constants)

    def outputs(self, form: str, params: Any) -> dict[str, jax.Array]:
        tree = {"params": params, **self.others}
        if form == "native":
            return run_native(self.kernels, tree, self.x)
        return run_plain(
            self.kernels, repjax.fuse_params(tree) if form == "online" else tree, self.x
        )

    def loss(self, form: str, params: Any) -> jax.Array:
        outputs = self.outputs(form, params)
        return sum(jnp.mean(jnp.sin(y) ** 2) for y in outputs.values())  # type: ignore[return-value]

    def moved(self, form: str, gradient: Any) -> Any:
        """What the optimizer is given."""
        if form == "gradient":
            return self.transform.update(gradient, optax.EmptyState())[0]

        def held(path: Any, leaf: Any) -> Any:
            return leaf * (not constants("/".join(entry.key for entry in path)))

        return jax.tree_util.tree_map_with_path(held, gradient)

    def start(self, form: str) -> Any:
        return (
            repjax.fuse_params(self.wide)["params"] if form == "gradient" else self.wide["params"]
        )

    def train(self, form: str) -> Any:
        """Outputs and gradient at the start, and parameters after 20 steps, by rule."""

        @evaluated
        def run(params: Any, momentum: Any, nesterov: Any) -> Any:
            def step(carry: Any, _: Any) -> Any:
                params, trace = carry
                change = self.moved(form, jax.grad(self.loss, 1)(form, params))
                trace = jax.tree.map(lambda old, new: momentum * old + new, trace, change)
                ahead = jax.tree.map(lambda old, new: momentum * old + new, trace, change)
                params = jax.tree.map(
                    lambda leaf, one, two: leaf - 0.1 * ((1 - nesterov) * one + nesterov * two),
                    *(params, trace, ahead),
                )
                return (params, trace), None

            begin = params, jax.tree.map(jnp.zeros_like, params)
            gradient = jax.grad(self.loss, 1)(form, params)
            return self.outputs(form, params), gradient, jax.lax.scan(step, begin, length=20)[0][0]

        return {name: run(self.start(form), *numbers) for name, numbers in RULES.items()}


@pytest.fixture(scope="module", params=[1, 2, 3], ids="{}-D".format)
def forms(request: pytest.FixtureRequest) -> Iterator[Any]:
    with jax.enable_x64(True):
        made = Forms(request.param)
        yield made, {form: made.train(form) for form in ("native", "online", "gradient")}


def test_the_fold_gives_the_outputs_and_gradients_of_the_branches(forms: Any) -> None:
    made, runs = forms
    close(runs["online"]["sgd"][0], runs["native"]["sgd"][0], 1e-12)
    close(runs["online"]["sgd"][1], runs["native"]["sgd"][1], 1e-10)
    close(runs["gradient"]["sgd"][0], runs["native"]["sgd"][0], 1e-12)
    with jax.enable_x64(True):
        close(repjax.fuse_params(made.wide)["params"], made.plain["params"], 1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_twenty_steps_end_in_the_same_network(forms: Any, rule: str) -> None:
    made, runs = forms
    native, online, gradient = (runs[form][rule][2] for form in ("native", "online", "gradient"))
    close(online, native, 1e-10)
    with jax.enable_x64(True):
        folded = repjax.fuse_params({"params": native, **made.others})["params"]
        close(gradient, folded, 1e-10)
        assert made.loss("gradient", gradient) < 0.9 * made.loss("gradient", made.plain["params"])
    for name, module in made.plain["params"].items():
        assert not np.allclose(gradient[name]["kernel"], module["kernel"], rtol=1e-2)


def test_the_step_through_the_fold_has_the_convolutions_of_the_plain_network(forms: Any) -> None:
    made, _ = forms

    def count(form: str) -> int:
        step = jax.value_and_grad(lambda params: made.loss(form, params))
        return int(repjax.count_operations(step, made.start(form))["conv_general_dilated"])

    with jax.enable_x64(True):
        assert count("online") == count("gradient") < count("native")
