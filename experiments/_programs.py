"""A network in its forms: what a benchmark compiles, as functions with their arguments."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

import repjax
from experiments.shrink import random_variables

Dtype = Literal["float32", "bfloat16", "float16"]
Task = Literal["inference", "training"]


@dataclasses.dataclass(frozen=True)
class Form:
    """A function and its arguments, the variables first.

    Args:
        name: "native", "fused", ...
        fn: ``fn(variables, images)``.
        variables: arrays.
    """

    name: str
    fn: Callable[..., Any]
    variables: Any


@dataclasses.dataclass(frozen=True)
class Network:
    """A model with random variables and images.

    Args:
        model: a Flax module.
        variables: of the model.
        images: (batch, height, width, channels).
    """

    model: Any
    variables: Any
    images: jax.Array


def model_named(name: str, **fields: Any) -> Any:
    """A network of `repjax.models`, or what ``module:function`` returns.

    Args:
        name: as `repjax.models.names` lists them; or a module that can be imported and a
            function in it that takes nothing and returns a Flax module.
        **fields: for a network of `repjax.models` alone.

    Raises:
        SystemExit: there is no such network, module or function.
    """
    module, colon, function = name.partition(":")
    try:
        if not colon:
            return repjax.models.create(name, **fields)
        return getattr(importlib.import_module(module), function)()
    except (ValueError, ImportError, AttributeError) as error:
        raise SystemExit(f"{name}: {error}") from None


def families() -> list[str]:
    """The first network of each family."""
    first: dict[type, str] = {}
    for name in repjax.models.names():
        first.setdefault(type(repjax.models.create(name)), name)
    return list(first.values())


def network(name: str, batch: int, size: int, dtype: Dtype, task: Task) -> Network:
    """A network with random variables and images, all of one type.

    In training the arrays stay float32 and a network of `repjax.models` computes in `dtype`;
    in inference they have that type themselves.
    """
    stored = "float32" if task == "training" else dtype
    fields = {} if ":" in name else {"dtype": jnp.dtype(dtype), "param_dtype": jnp.dtype(stored)}
    model = model_named(name, **fields)
    shape = (batch, size, size, getattr(model, "in_channels", 3))
    images = jnp.asarray(np.random.default_rng(1).normal(size=shape), dtype)
    variables = random_variables(jax.eval_shape(model.init, jax.random.key(0), images))
    variables = jax.tree.map(lambda leaf: leaf.astype(stored), variables)
    return Network(model, variables, images)


def inference_forms(one: Network) -> list[Form]:
    """Native; fused by the tree, where the model has a deploy twin; fused by tracing."""
    forms = [Form("native", one.model.apply, one.variables)]
    if hasattr(one.model, "deploy"):
        deployed = jax.jit(repjax.fuse_params)(one.variables)
        forms.append(Form("fused", one.model.deploy().apply, deployed))
    fused = repjax.fuse(one.model.apply, one.variables, one.images)
    return [*forms, Form("fused by tracing", fused.apply, fused.params)]


def training_forms(one: Network) -> list[Form]:
    """Loss and gradient: native; through the fold; the deploy twin as a plain network.

    Through the fold, batch norms of branches are folded with their running statistics.
    """
    forms = [Form("native", step(one.model), one.variables)]
    if hasattr(one.model, "deploy"):
        plain = step(one.model.deploy())
        through = step(one.model.deploy(), fold=repjax.fuse_params)
        deployed = jax.jit(repjax.fuse_params)(one.variables)
        forms += [Form("through the fold", through, one.variables), Form("plain", plain, deployed)]
    return forms


def step(model: Any, fold: Callable[[Any], Any] = lambda variables: variables) -> Any:
    """``f(variables, images)``: loss, gradient and new statistics.

    The loss is the mean of the squared outputs, which any network has.
    """
    train = "train" in inspect.signature(type(model).__call__).parameters

    def loss(params: Any, rest: Any, images: jax.Array) -> tuple[jax.Array, Any]:
        variables = fold({"params": params, **rest})
        if train:
            rngs = {"dropout": jax.random.key(0)}
            outputs, new = model.apply(
                variables, images, train=True, mutable=["batch_stats"], rngs=rngs
            )
        else:
            outputs, new = model.apply(variables, images), {}
        return jnp.mean(jnp.square(outputs.astype(jnp.float32))), new

    def run(variables: Any, images: jax.Array) -> Any:
        rest = {name: value for name, value in variables.items() if name != "params"}
        return jax.value_and_grad(loss, has_aux=True)(variables["params"], rest, images)

    return run
