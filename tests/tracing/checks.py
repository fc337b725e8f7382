"""What every test of the tracing door asks: exact, and so many operations before and after."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repjax import fuse
from repjax.counting import operations_in
from tests.evaluate import COMPILED, Program, outputs
from tests.tracing.reading import Work, work_in

COUNTED = {"conv": "conv_general_dilated", "dot": "dot_general", "pool": "reduce_window_sum"}


def counts(fn, *args):
    """Numbers of convolutions, dots and pools, those that are there."""
    return counts_in(Program(fn, *args))


def counts_in(program):
    """The same of a program that is traced already."""
    found = operations_in(program.jaxpr)
    return {short: found[name] for short, name in COUNTED.items() if found[name]}


def random_like(tree, seed=0):
    """Random float64 arrays: kernels normal, vectors between 0.5 and 1.5 (a variance is)."""
    rng = np.random.default_rng(seed)

    def draw(leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        if len(leaf.shape) <= 1:
            return array(rng.uniform(0.5, 1.5, leaf.shape))
        return array(rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1])))

    return jax.tree.map(draw, tree)


def numbers(*shape, seed=1):
    """A normal float64 NumPy array, whatever JAX's default type is."""
    return np.random.default_rng(seed).normal(size=shape)


def array(values):
    """A JAX array; `jnp.asarray` would compile a program for each shape."""
    return jax.device_put(values)


def image(*shape, seed=1):
    return array(numbers(*shape, seed=seed))


def error(expected, found):
    """Largest difference over largest value, over all outputs.

    An output of which nothing reaches 1e-15 in either program is a zero, rounded or exact.
    """
    worst = 0.0
    pairs = zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True)
    for one, two in pairs:
        assert one.shape == two.shape
        assert one.dtype == two.dtype
        if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
            one, two = jax.random.key_data(one), jax.random.key_data(two)
        one, two = np.asarray(one), np.asarray(two)
        if one.dtype == bool:
            one, two = one.astype(int), two.astype(int)
        largest = np.abs(one).max(initial=0.0)
        if max(largest, np.abs(two).max(initial=0.0)) > 1e-15:
            worst = max(worst, np.abs(one - two).max() / max(largest, 1e-30))
    return worst


def gap(apply, variables, fused, *inputs):
    """How far a fused program is from the original, on other inputs than those of `fuse` too."""
    return error(outputs(apply, variables, *inputs), outputs(fused.apply, fused.params, *inputs))


def is_float(leaf):
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)


def others(variables):
    """Other variables: every float a little larger, each by another factor."""
    rng = np.random.default_rng(7)

    def change(leaf):
        if not is_float(leaf):
            return leaf
        leaf = np.asarray(leaf)
        return (leaf * (1 + rng.uniform(0.05, 0.3, leaf.shape)) + 0.01).astype(leaf.dtype)

    return jax.tree.map(change, variables)


def named_leaves(params):
    """Fused parameters by the last part of their path and the whole of it."""
    flat = jax.tree_util.tree_flatten_with_path(params)[0]
    return [("/".join(str(getattr(p, "key", p)) for p in path), leaf) for path, leaf in flat]


def leaves_called(params, name):
    """Leaves of that name, numbered or not."""
    called = re.compile(rf"(.*/)?{name}(_\d+)?")
    return [leaf for path, leaf in named_leaves(params) if called.fullmatch(path)]


def check(
    apply,
    variables,
    *inputs,
    before=None,
    after=None,
    products=None,
    shifts=None,
    gone=(),
    gradients=False,
    tolerance=1e-12,
    **options,
):
    """Fuse, compare in float64, compare the counts; returns the fused program.

    Args:
        before, after: numbers of convolutions, dots and pools.
        products: number of products of data with a weight or a constant vector, after.
        shifts: number of sums of data with a weight or a constant vector, after.
        gone: names of primitives of which none may be left.
        gradients: compare derivatives with respect to inputs and variables too.
        tolerance: largest difference over largest value.
        options: for `fuse`.
    """
    fused = folded(apply, variables, *inputs, **options)
    one, two = Program(apply, variables, *inputs), Program(fused.apply, fused.params, *inputs)
    expected, found = one.outputs(), two.outputs()
    assert jax.tree.structure(expected) == jax.tree.structure(found)
    assert error(expected, found) <= tolerance
    depend_on_variables(fused, variables)
    if gradients:
        same_gradients(apply, variables, fused, *inputs)
    if before is not None:
        assert counts_in(one) == before
    if after is not None:
        assert counts_in(two) == after
    native, merged = work_in(one, variables), work_in(two, fused.params)
    no_more(native, merged)
    if products is not None:
        assert merged.products == products
    if shifts is not None:
        assert merged.shifts == shifts
    left = operations_in(two.jaxpr)
    assert not [name for name in gone if left[name]]
    return fused


def folded(apply, variables, *inputs, **options):
    """As `fuse`, with the fold of the variables evaluated like everything else."""
    if COMPILED:
        return fuse(apply, variables, *inputs, **options)
    fused = fuse(apply, jax.tree.map(shape_of, variables), *inputs, **options)
    fused.params = outputs(fused.fuse_params, variables)
    return fused


def shape_of(leaf):
    if not hasattr(leaf, "dtype"):
        return leaf
    aval = jax.typeof(leaf)
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=aval.weak_type)


def no_more(before: Work, after: Work):
    """Fusing never adds multiply-accumulates, nor products of data with what is no data."""
    assert after.macs <= before.macs
    assert after.products + after.scalars <= before.products + before.scalars


def depend_on_variables(fused, variables):
    """No fused leaf is a constant: each changes when every variable does."""
    moved = outputs(fused.fuse_params, others(variables))
    pairs = zip(named_leaves(fused.params), named_leaves(moved), strict=True)
    fixed = [
        path
        for (path, one), (_, two) in pairs
        if is_float(one) and one.size and np.array_equal(one, two)
    ]
    assert not fixed, fixed


def same_gradients(apply, variables, fused, *inputs, tolerance=1e-10):
    """Derivatives with respect to all floats, of one number that all outputs enter.

    They are measured by the largest of them all.
    """
    floats, treedef = jax.tree.flatten((variables, inputs))
    places = [place for place, leaf in enumerate(floats) if is_float(leaf)]

    def total(outputs):
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(outputs) if is_float(leaf))

    def of(run):
        def scalar(*arrays):
            leaves = list(floats)
            for place, array in zip(places, arrays, strict=True):
                leaves[place] = array
            return total(run(*jax.tree.unflatten(treedef, leaves)))

        slopes = jax.grad(scalar, tuple(range(len(places))))
        return outputs(slopes, *(floats[place] for place in places))

    expected = of(lambda variables, inputs: apply(variables, *inputs))
    found = of(lambda variables, inputs: fused.apply(fused.fuse_params(variables), *inputs))
    largest = max((np.abs(one).max(initial=0.0) for one in expected), default=0.0)
    for one, two in zip(expected, found, strict=True):  # some vanish but for rounding
        assert np.abs(one - two).max(initial=0.0) <= tolerance * max(largest, 1e-30)


def mostly_slow(names, *always):
    """Names for `parametrize`: those not told here wait for the slow suite."""
    missing = set(always) - set(names)
    assert not missing, missing
    return [
        name if name in always else pytest.param(name, marks=pytest.mark.slow) for name in names
    ]


def linen(module, x, seed=0):
    """Random variables of a Linen module, without computing anything."""
    return random_like(jax.eval_shape(module.init, jax.random.key(0), x), seed)
