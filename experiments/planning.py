"""How long `repjax.fuse` takes from a cold start, and how planning grows with depth.

    python -m experiments.planning
    python -m experiments.planning --networks repvgg_a0 --chain 12 25 50 --blocks 50 100

For networks: "plan" fuses abstract variables, so that nothing is folded; "fold" compiles and runs
``jax.jit(fused.fuse_params)``; "fuse" is a whole cold start on arrays. What is above one in
``fuse / (plan + fold)`` is overhead. For chains and blocks nothing is computed: "trace" is JAX
reading the program once, "plan" that once more and everything that repjax does. A chain is 1x1
convolutions and batch norm without non-linearities, one region however long it is; blocks are
RepVGG's, a region each.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import repjax
from experiments._machine import describe


def norm(name: str) -> nn.BatchNorm:
    """Batch norm in inference."""
    return nn.BatchNorm(use_running_average=True, name=name)


class Chain(nn.Module):
    """1x1 convolutions with batch norm in a row, without a non-linearity.

    Args:
        length: number of convolutions.
        features: channels of each.
    """

    length: int
    features: int = 16

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """All of them."""
        for number in range(self.length):
            x = nn.Conv(self.features, (1, 1), use_bias=False, name=f"conv{number}")(x)
            x = norm(f"norm{number}")(x)
        return x


class Blocks(nn.Module):
    """Blocks in a row: conv3x3 + conv1x1 + identity, each with batch norm, then relu.

    Args:
        length: number of blocks.
        features: channels of each.
    """

    length: int
    features: int = 16

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """All of them."""
        for number in range(self.length):
            y = nn.Conv(self.features, (3, 3), use_bias=False, name=f"conv3_{number}")(x)
            z = nn.Conv(self.features, (1, 1), use_bias=False, name=f"conv1_{number}")(x)
            y = norm(f"norm3_{number}")(y) + norm(f"norm1_{number}")(z)
            x = nn.relu(y + norm(f"norm0_{number}")(x))
        return x


def seconds(run: Callable[[], Any], *, cold: bool) -> tuple[float, Any]:
    """Time of one call, with JAX's caches emptied before where it shall be a cold start."""
    if cold:
        jax.clear_caches()  # type: ignore[no-untyped-call]
    start = time.perf_counter()
    result = jax.block_until_ready(run())  # type: ignore[no-untyped-call]
    return time.perf_counter() - start, result


def drawn(shapes: Any) -> Any:
    """Random variables, without compiling an initialization: positive, as a variance is."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), leaf.dtype), shapes
    )


def cold_start(name: str, size: int) -> dict[str, float]:
    """Seconds of planning, folding and fusing a network."""
    model = repjax.models.create(name)
    images = jax.eval_shape(lambda: jnp.zeros((1, size, size, 3)))
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    variables = drawn(shapes)
    plan, fused = seconds(
        lambda: Held(repjax.fuse(model.apply, shapes, images)),
        cold=True,
    )
    fold, _ = seconds(lambda: jax.jit(fused.value.fuse_params)(variables), cold=True)
    fuse, _ = seconds(lambda: repjax.fuse(model.apply, variables, images).params, cold=True)
    again, _ = seconds(lambda: repjax.fuse(model.apply, variables, images).params, cold=False)
    return {"plan": plan, "fold": fold, "fuse": fuse, "again": again}


class Held:
    """A value wrapped so that `jax.block_until_ready` does not wait for it."""

    def __init__(self, value: Any) -> None:
        self.value = value


def planned(network: Chain | Blocks) -> tuple[float, float, dict[str, int]]:
    """Seconds to trace a network and to plan it, and the kernels it is planned as."""
    images = jax.eval_shape(lambda: jnp.zeros((1, 14, 14, network.features)))
    shapes = jax.eval_shape(network.init, jax.random.key(0), images)
    trace, _ = seconds(
        lambda: Held(jax.make_jaxpr(lambda v, x: network.apply(v, x))(shapes, images)), cold=False
    )
    plan, fused = seconds(lambda: Held(repjax.fuse(network.apply, shapes, images)), cold=False)
    return trace, plan, fused.value.report.totals.kernels


def growth(title: str, networks: Sequence[Chain | Blocks]) -> None:
    """Print how planning grows with length; the power is 1 where it is linear."""
    print(f"\n{title}")
    print(f"{'length':>8}{'trace, s':>11}{'plan, s':>11}{'ms each':>11}{'power':>8}  kernels")
    before: tuple[int, float] | None = None
    for network in networks:
        trace, plan, kernels = planned(network)
        power = ""
        if before is not None:
            power = f"{np.log(plan / before[1]) / np.log(network.length / before[0]):.2f}"
        each = 1000 * plan / network.length
        print(f"{network.length:>8}{trace:>11.2f}{plan:>11.2f}{each:>11.1f}{power:>8}  {kernels}")
        before = network.length, plan


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="*", default=["repvgg_a0", "mobileone_s0"])
    parser.add_argument("--size", type=int, default=224, help="height and width of the images")
    parser.add_argument("--chain", type=int, nargs="*", default=[12, 25, 50, 100])
    parser.add_argument("--blocks", type=int, nargs="*", default=[50, 100, 200])
    arguments = parser.parse_args()
    print("   ".join(f"{name} {value}" for name, value in describe().items()))
    planned(Chain(2))  # JAX's own first-time work
    if arguments.networks:
        print("\ncold start, seconds")
        print(f"{'network':>16}{'plan':>8}{'fold':>8}{'fuse':>8}{'again':>8}  fuse / (plan + fold)")
    for name in arguments.networks:
        found = cold_start(name, arguments.size)
        ratio = found["fuse"] / (found["plan"] + found["fold"])
        print(f"{name:>16}" + "".join(f"{value:8.2f}" for value in found.values()), end="")
        print(f"  {ratio:.2f}")
    if arguments.chain:
        growth("a chain of 1x1 convolutions and norms", [Chain(one) for one in arguments.chain])
    if arguments.blocks:
        growth("blocks of three branches", [Blocks(one) for one in arguments.blocks])


if __name__ == "__main__":
    main()
