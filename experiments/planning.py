"""How long `repjax.fuse` plans, from 50 to 500 blocks: the curve, and how it divides.

    python experiments/planning.py --blocks 50 100 200 500

Nothing is computed: variables and images are abstract. "trace" is JAX reading the program once,
"fuse" that once more and everything that repjax does.
"""

from __future__ import annotations

import argparse
import time

import flax.linen as nn
import jax
import jax.numpy as jnp

import repjax


class Block(nn.Module):
    """conv3x3 + conv1x1 + identity, each with batch norm, then relu."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """One block."""

        def norm(name: str) -> nn.BatchNorm:
            return nn.BatchNorm(use_running_average=True, name=name)

        y = norm("norm3")(nn.Conv(self.features, (3, 3), use_bias=False, name="conv3")(x))
        y = y + norm("norm1")(nn.Conv(self.features, (1, 1), use_bias=False, name="conv1")(x))
        return nn.relu(y + norm("identity")(x))


class Network(nn.Module):
    """Blocks in a row."""

    blocks: int
    features: int = 64

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """All blocks."""
        for number in range(self.blocks):
            x = Block(self.features, name=f"block{number}")(x)
        return x


def measure(blocks: int) -> tuple[float, float]:
    """Seconds to trace a network of that many blocks, and to fuse it (tracing included)."""
    network = Network(blocks)
    images = jax.eval_shape(lambda: jnp.zeros((1, 14, 14, network.features)))
    variables = jax.eval_shape(network.init, jax.random.key(0), images)
    start = time.perf_counter()
    jax.make_jaxpr(lambda variables, images: network.apply(variables, images))(variables, images)
    traced = time.perf_counter()
    fused = repjax.fuse(network.apply, variables, images)
    done = time.perf_counter()
    kernels = fused.report.totals.kernels
    if kernels.get("conv") != blocks:
        raise AssertionError(f"{blocks} blocks became {kernels}")
    return traced - start, done - traced


def main() -> None:
    """Print the curve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, nargs="+", default=[50, 100, 200, 500])
    arguments = parser.parse_args()
    measure(2)  # JAX's own first-time work
    print(f"jax {jax.__version__}")
    print(f"{'blocks':>8} {'trace, s':>10} {'fuse, s':>10} {'per block, ms':>14}")
    first = None
    for blocks in arguments.blocks:
        traced, fused = measure(blocks)
        first = first or fused
        per_block = 1000 * fused / blocks
        print(
            f"{blocks:>8} {traced:>10.2f} {fused:>10.2f} {per_block:>14.1f}   x{fused / first:.1f}"
        )


if __name__ == "__main__":
    main()
