"""What every test of the tracing door asks: exact, and so many operations before and after."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from repjax.tracing.fused import fuse
from repjax.jaxprs import count_operations

COUNTED = {"conv": "conv_general_dilated", "dot": "dot_general", "pool": "reduce_window_sum"}


def counts(fn, *args):
    """Numbers of convolutions, dots and pools, those that are there."""
    found = count_operations(fn, *args)
    return {short: found[name] for short, name in COUNTED.items() if found[name]}


def random_like(tree, seed=0):
    """Random float64 arrays: kernels normal, vectors between 0.5 and 1.5 (a variance is)."""
    rng = np.random.default_rng(seed)

    def draw(leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        if len(leaf.shape) <= 1:
            return jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape))
        return jnp.asarray(rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1])))

    return jax.tree.map(draw, tree)


def numbers(*shape, seed=1):
    """A normal float64 NumPy array, whatever JAX's default type is."""
    return np.random.default_rng(seed).normal(size=shape)


def image(*shape, seed=1):
    return jnp.asarray(numbers(*shape, seed=seed))


def error(expected, found):
    """Largest difference over largest value, over all outputs.

    An output of which nothing reaches 1e-15 in either program is a zero, rounded or exact.
    """
    worst = 0.0
    pairs = zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True)
    for one, two in pairs:
        assert one.shape == two.shape
        assert one.dtype == two.dtype
        one, two = np.asarray(one), np.asarray(two)
        largest = np.abs(one).max(initial=0.0)
        if max(largest, np.abs(two).max(initial=0.0)) > 1e-15:
            worst = max(worst, np.abs(one - two).max() / max(largest, 1e-30))
    return worst


def check(apply, variables, *inputs, before=None, after=None, tolerance=1e-12, **options):
    """Fuse, compare in float64, compare the counts; returns the fused program."""
    fused = fuse(apply, variables, *inputs, **options)
    expected = apply(variables, *inputs)
    found = fused.apply(fused.params, *inputs)
    assert jax.tree.structure(expected) == jax.tree.structure(found)
    assert error(expected, found) <= tolerance
    if before is not None:
        assert counts(apply, variables, *inputs) == before
    if after is not None:
        assert counts(fused.apply, fused.params, *inputs) == after
    return fused


def linen(module, x, seed=0):
    """Random variables of a Linen module, without computing anything."""
    return random_like(jax.eval_shape(module.init, jax.random.key(0), x), seed)
