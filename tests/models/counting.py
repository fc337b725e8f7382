"""Counting by shape: parameters, multiply-accumulates and activations, without any array."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

import repjax


@dataclasses.dataclass(frozen=True)
class Counts:
    """Of one image, as timm counts them: `macs` are products of convolutions and matrices and
    two operations per element of a batch norm, `activations` outputs of the former."""

    parameters: int
    convolutions: int
    norms: int
    macs: int
    activations: int


def count(model: nn.Module, size: int = 224, channels: int = 3) -> Counts:
    """The counts of a network in train form, by shape evaluation."""
    return traced(model, image(size, channels))[0]


def count_deployed(model: nn.Module, size: int = 224, channels: int = 3) -> Counts:
    """The counts of its deploy twin; the fused tree must have the twin's shapes."""
    _, variables = traced(model, image(size, channels))
    counts, twin = traced(model.deploy(), image(size, channels))
    deployed = jax.eval_shape(repjax.fuse_params, variables)
    assert jax.tree.map(shape, deployed) == jax.tree.map(shape, twin)
    return counts


@functools.lru_cache(maxsize=4)
def traced(model: nn.Module, x: Any) -> tuple[Counts, Any]:
    """The counts of a network and the shapes of its variables, in one trace of `init`.

    That runs the network once, beside the initializers, which neither convolve nor multiply
    matrices.
    """
    normed = 0

    def watch(call: Any, arguments: Any, keywords: Any, context: Any) -> Any:
        nonlocal normed
        y = call(*arguments, **keywords)
        if isinstance(context.module, nn.BatchNorm) and context.method_name == "__call__":
            normed += y.size
        return y

    with nn.intercept_methods(watch):
        program, variables = jax.make_jaxpr(model.init, return_shape=True)(jax.random.key(0), x)
    return of_program(program.jaxpr, variables, normed), variables


def norms_of_one_convolution(variables: Any) -> int:
    """Channels of the norms that stand behind a single convolution, no sum.

    timm's deploy form keeps them: two parameters a channel, where ours has one, the bias.
    """
    leaves = jax.tree_util.tree_leaves_with_path(variables["params"])
    paths = [([key.key for key in path], leaf.size) for path, leaf in leaves]
    scales = [(path[-3], size) for path, size in paths if path[-2:] == ["norm", "scale"]]
    return sum(size for node, size in scales if node.startswith("y=") and "+" not in node)


def image(size: int, channels: int = 3) -> Any:
    return jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)  # type: ignore[no-untyped-call]


def shape(leaf: Any) -> tuple[Any, ...]:
    return leaf.shape, leaf.dtype


def of_program(program: Any, variables: Any, normed: int = 0) -> Counts:
    statistics = jax.tree_util.tree_leaves_with_path(variables.get("batch_stats", {}))
    convs = [equation for equation in equations(program) if is_conv(equation)]
    dots = [equation for equation in equations(program) if equation.primitive.name == "dot_general"]
    products = [*map(conv_macs, convs), *map(dot_macs, dots)]
    return Counts(
        parameters=sum(leaf.size for leaf in jax.tree.leaves(variables["params"])),
        convolutions=len(convs),
        norms=sum(path[-1].key == "mean" for path, _ in statistics),
        macs=sum(products) + 2 * normed,
        activations=sum(map(outputs, (*convs, *dots))),
    )


def equations(jaxpr: Any) -> Iterator[Any]:
    """Every equation of a program, calls inlined."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for part in value if isinstance(value, tuple | list) else (value,):
                body = getattr(part, "jaxpr", part)
                if hasattr(body, "eqns"):
                    yield from equations(body)


def is_conv(equation: Any) -> bool:
    return bool(equation.primitive.name == "conv_general_dilated")


def outputs(equation: Any) -> int:
    return math.prod(map(int, equation.outvars[0].aval.shape))


def conv_macs(equation: Any) -> int:
    """Products per output times outputs: a kernel has (..., in/groups, out)."""
    kernel = equation.invars[1].aval.shape
    spec = equation.params["dimension_numbers"].rhs_spec
    products = math.prod(map(int, kernel)) // int(kernel[spec[0]])
    return outputs(equation) * products


def dot_macs(equation: Any) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return outputs(equation) * math.prod(int(left[axis]) for axis in contracted)
