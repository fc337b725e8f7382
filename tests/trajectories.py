"""The trajectories of RepOptimizers, taken by the plain network with re-parameterized gradients."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import repjax
from repjax.optim import branch_gradient, branch_update


def check(path: Path) -> None:
    """Run the trajectory of a file, and compare it with what the official code computed."""
    with np.load(path) as file:
        arrays = {name: np.asarray(file[name]) for name in file.files}
    meta = json.loads(str(arrays["meta"]))
    {"TestModel": one_kernel, "RepOptVGG": network}[meta["class"].split()[0]](arrays, meta)


def hwio(array: Any) -> jax.Array:
    return jnp.asarray(array, jnp.float64).transpose(2, 3, 1, 0)


def convolve(x: Any, kernel: Any, stride: int = 1) -> jax.Array:
    names = ("NCHW", "HWIO", "NCHW")
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), ((1, 1), (1, 1)), dimension_numbers=names
    )


def near(found: Any, wanted: Any, tolerance: float = 1e-9) -> None:
    """As the reference data state their tolerances: the largest difference, absolute."""
    assert np.abs(np.asarray(found) - np.asarray(wanted)).max() < tolerance


def one_kernel(arrays: dict[str, Any], meta: dict[str, Any]) -> None:
    """Two scaled branches, one kernel: both trajectories, kernel by kernel.

    The file says how far its own two trajectories agree. The official AdamW multiplies the
    gradient too; Adam divides that out again up to its epsilon, so ours, which does not,
    agrees with both as far as they agree with each other.
    """
    rule, scales = meta["constructor"], jnp.asarray(arrays["scales"])
    node = {
        f"conv{size}x{size}": {
            "kernel": hwio(arrays[f"state/conv{number}.weight"]),
            "scale": jnp.full(4, scales[number - 1]),
        }
        for number, size in ((1, 3), (2, 1))
    }
    tree = {"y=scale(conv3x3)+scale(conv1x1)": node}
    constants: Callable[[str], bool] = lambda path: path.endswith("scale")  # noqa: E731
    decay, rate = optax.add_decayed_weights(rule["weight_decay"]), optax.scale(-rule["lr"])
    plain = repjax.fuse_params(tree)
    near(plain["kernel"], hwio(arrays["init_equivalent"]))
    stated = meta["tolerance_train_deploy"]
    if rule["update_rule"] == "sgd":
        momentum = optax.trace(rule["momentum"], rule["nesterov"])
        runs = [(1e-9, [branch_gradient(tree, constants), decay, momentum])]
    else:
        adam = optax.scale_by_adam(*rule["betas"], rule["eps"])
        update = branch_update(tree, constants)
        runs = [(1e-9, [update, adam, update, decay]), (stated, [adam, update, decay])]

    def loss(params: Any, x: Any) -> Any:
        return jnp.var(convolve(x, params["kernel"]), ddof=1)

    for tolerance, chain in runs:
        optimizer, params = optax.chain(*chain, rate), plain
        state = optimizer.init(params)

        @jax.jit
        def step(params: Any, state: Any, x: Any, optimizer: Any = optimizer) -> Any:
            value, gradient = jax.value_and_grad(loss)(params, x)
            change, state = optimizer.update(gradient, state, params)
            return optax.apply_updates(params, change), state, value

        for number, x in enumerate(arrays["input"].astype(np.float64)):
            params, state, value = step(params, state, x)
            near(value, arrays["loss_repopt"][number], tolerance)
            near(params["kernel"], hwio(arrays["trajectory_repopt"][number]), tolerance)
            near(params["kernel"], hwio(arrays["trajectory_csla_equivalent"][number]), stated)


def network(arrays: dict[str, Any], meta: dict[str, Any]) -> None:
    """A small RepOpt-VGG: constant scales on the kernels, a trained one on the input."""
    rule = meta["constructor"]
    ends = ("grad_mult/", ".conv.weight")
    names = sorted(k.removeprefix(ends[0]).removesuffix(ends[1]) for k in arrays if ends[0] in k)
    tree: dict[str, Any] = {}
    for name in names:
        state = {k.removeprefix(f"state/{name}."): v for k, v in arrays.items()}
        node = {
            "conv3x3": {
                "kernel": hwio(state["conv.weight"]),
                "scale": jnp.asarray(state["scale_conv.weight"], jnp.float64),
            },
            "conv1x1": {
                "kernel": hwio(state["conv_1x1.weight"]),
                "scale": jnp.asarray(state["scale_1x1.weight"], jnp.float64),
            },
        }
        equation = "y=scale(conv3x3)+scale(conv1x1)"
        if "scale_identity.weight" in state:
            equation += "+scale(identity)"
            own = jnp.asarray(state["scale_identity.weight"], jnp.float64)
            node["identity"] = {"scale": own}
        norm = {part: jnp.asarray(state[f"bn.{part}"], jnp.float64) for part in ("weight", "bias")}
        tree[name] = {"conv": {equation: node}, "bn": norm}
    tree["linear"] = {
        part: jnp.asarray(arrays[f"state/linear.{part}"], jnp.float64)
        for part in ("weight", "bias")
    }

    def constants(path: str) -> bool:
        return path.endswith("scale") and "/identity/" not in path

    params = repjax.fuse_params(tree)
    ones = jax.tree.map(jnp.ones_like, params)
    transform = branch_gradient(tree, constants)
    multipliers, _ = transform.update(ones, transform.init(params))
    for name in names:
        near(params[name]["conv"]["kernel"], hwio(arrays[f"target_init/{name}.conv.weight"]))
        near(multipliers[name]["conv"]["kernel"], hwio(arrays[f"grad_mult/{name}.conv.weight"]))
    strides = dict(zip("01234", rule["strides"], strict=True))

    def forward(params: Any, x: Any, running: Any = None) -> tuple[jax.Array, dict[str, Any]]:
        moments = {}
        for name in names:
            y = convolve(x, params[name]["conv"]["kernel"], strides[name[5]])
            mean, var = y.mean((0, 2, 3)), y.var((0, 2, 3))
            moments[name] = (mean, y.var((0, 2, 3), ddof=1))
            if running is not None:
                mean, var = running[name]
            bn = params[name]["bn"]
            wide = [a[:, None, None] for a in (mean, var, bn["weight"], bn["bias"])]
            x = jax.nn.relu((y - wide[0]) / jnp.sqrt(wide[1] + 1e-5) * wide[2] + wide[3])
        pooled, linear = x.mean((2, 3)), params["linear"]
        return pooled @ linear["weight"].T + linear["bias"], moments

    def loss(params: Any, x: Any, y: Any) -> Any:
        logits, moments = forward(params, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), moments

    decayed = jax.tree.map(lambda leaf: leaf.ndim > 1, params)
    optimizer = optax.chain(
        transform,
        optax.add_decayed_weights(rule["weight_decay"], decayed),
        optax.sgd(rule["lr"], rule["momentum"], rule["nesterov"]),
    )
    state = optimizer.init(params)
    running = {
        name: tuple(
            jnp.asarray(arrays[f"state/{name}.bn.running_{part}"], jnp.float64)
            for part in ("mean", "var")
        )
        for name in names
    }

    @jax.jit
    def step(params: Any, state: Any, running: Any, x: Any, y: Any) -> Any:
        (value, moments), gradient = jax.value_and_grad(loss, has_aux=True)(params, x, y)
        change, state = optimizer.update(gradient, state, params)
        running = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, running, moments)
        return optax.apply_updates(params, change), state, running, value

    batches = zip(arrays["input"].astype(np.float64), arrays["target"], strict=True)
    for number, (x, y) in enumerate(batches):
        params, state, running, value = step(params, state, running, x, y)
        near(value, arrays["loss_repopt"][number])
        near(value, arrays["loss_csla"][number])
    for name in names:
        near(params[name]["conv"]["kernel"], hwio(arrays[f"final_repopt/{name}.conv.weight"]))
    near(params["linear"]["weight"], arrays["final_repopt/linear.weight"])
    logits, _ = forward(params, arrays["input"][-1].astype(np.float64), running)
    near(logits, arrays["output"])
    near(logits, arrays["deploy_output"])
