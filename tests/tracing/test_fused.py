"""The object that `fuse` gives: a pure function and its parameters, under every transformation."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from repjax import fuse
from tests.tracing.checks import counts, error, gap, image, linen, random_like
from tests.tracing.test_families import RepVGG, RepVGGBlock


class Body(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return RepVGGBlock(4, name="block")(x), x.mean()


class Scanned(nn.Module):
    @nn.compact
    def __call__(self, x):
        stack = nn.scan(
            Body,
            variable_axes={"params": 0, "batch_stats": 0},
            split_rngs={"params": True},
            length=3,
        )
        return stack(name="blocks")(nn.Conv(4, (3, 3), name="stem")(x), None)


@functools.cache
def small_network():
    module, x = RepVGG(stages=1), image(2, 8, 8, 3)
    variables = linen(module, x)
    return jax.jit(module.apply), variables, x, fuse(module.apply, variables, x)


@pytest.fixture
def case(x64):
    return small_network()


def test_parameters_are_named_after_modules(case):
    *_, fused = case
    assert set(fused.params) == {"stem", "stage0_0", "stage0_1", "head"}
    for node in fused.params.values():
        assert set(node) == {"kernel", "bias"}


def test_structure_and_values_are_the_same_every_time(case):
    apply, variables, x, fused = case
    again = fuse(apply, variables, x)
    assert jax.tree.structure(again.params) == jax.tree.structure(fused.params)
    assert all(
        np.array_equal(one, two)
        for one, two in zip(
            jax.tree.leaves(again.params), jax.tree.leaves(fused.params), strict=True
        )
    )


def test_abstract_in_abstract_out(case):
    apply, variables, x, fused = case
    abstract = fuse(
        apply, jax.eval_shape(lambda: variables), jax.ShapeDtypeStruct(x.shape, x.dtype)
    )
    same = jax.tree.map(
        lambda one, two: one.shape == two.shape and one.dtype == two.dtype,
        abstract.params,
        fused.params,
    )
    assert all(jax.tree.leaves(same))
    params = abstract.fuse_params(variables)
    assert error(apply(variables, x), abstract.apply(params, x)) < 1e-12


def test_jit_vmap_and_grad_of_apply(case):
    apply, variables, x, fused = case
    expected = apply(variables, x)
    assert error(expected, jax.jit(fused.apply)(fused.params, x)) < 1e-12
    many = jnp.stack([x, 2 * x])
    found = jax.jit(jax.vmap(fused.apply, (None, 0)))(fused.params, many)
    assert error(jax.vmap(apply, (None, 0))(variables, many), found) < 1e-12
    slope = jax.jit(jax.grad(lambda x: apply(variables, x).sum()))(x)
    found = jax.jit(jax.grad(lambda x: fused.apply(fused.params, x).sum()))(x)
    assert error(slope, found) < 1e-12
    slopes = jax.jit(jax.grad(lambda p: fused.apply(p, x).sum()))(fused.params)
    assert jax.tree.structure(slopes) == jax.tree.structure(fused.params)
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(slopes["head"]))


def test_jit_vmap_and_grad_of_fuse_params(case):
    apply, variables, x, fused = case
    other = random_like(variables, seed=5)
    both = jax.tree.map(lambda one, two: jnp.stack([one, two]), variables, other)
    stacked = jax.jit(jax.vmap(fused.fuse_params))(both)
    second = jax.tree.map(lambda leaf: leaf[1], stacked)
    assert error(apply(other, x), jax.jit(fused.apply)(second, x)) < 1e-12

    def through(variables):
        return (fused.apply(fused.fuse_params(variables), x) ** 2).sum()

    expected = jax.jit(jax.grad(lambda v: (apply(v, x) ** 2).sum()))(variables)
    assert error(expected, jax.jit(jax.grad(through))(variables)) < 1e-9


@pytest.mark.parametrize("shape", [(5, 8, 8, 3), (1, 12, 16, 3), (3, 9, 8, 3)])
def test_other_batch_sizes_and_resolutions(case, shape):
    apply, variables, _, fused = case
    x = image(*shape)
    assert gap(apply, variables, fused, x) < 1e-12
    assert counts(fused.apply, fused.params, x) == {"conv": 3, "dot": 1}


def test_export_with_a_symbolic_batch(case):
    apply, variables, _, fused = case
    shape = jax.export.symbolic_shape("b, 8, 8, 3")
    spec = jax.ShapeDtypeStruct(shape, jnp.float64)
    params = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), fused.params)
    exported = jax.export.export(jax.jit(fused.apply))(params, spec)
    loaded = jax.export.deserialize(exported.serialize())
    x = image(3, 8, 8, 3)
    assert error(apply(variables, x), loaded.call(fused.params, x)) < 1e-12


def test_sharded_variables_and_inputs(case):
    apply, variables, _, fused = case
    automatic = (jax.sharding.AxisType.Auto,) * 2
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=automatic)
    x = image(4, 8, 8, 3)

    def placed(leaf):
        parts = [None] * leaf.ndim
        if leaf.ndim and leaf.shape[-1] % 4 == 0:
            parts[-1] = "model"
        return jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(*parts)))

    params = jax.jit(fused.fuse_params)(jax.tree.map(placed, variables))
    batch = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    found = jax.jit(fused.apply)(jax.tree.map(placed, params), batch)
    assert error(apply(variables, x), found) < 1e-12


def test_scan_over_blocks_keeps_its_parameters_stacked(x64):
    module, x = Scanned(), image(1, 6, 6, 3)
    variables = linen(module, x)
    fused = fuse(module.apply, variables, x)
    apply = jax.jit(module.apply)
    assert gap(apply, variables, fused, x) < 1e-12
    assert counts(module.apply, variables, x) == {"conv": 7}
    assert counts(fused.apply, fused.params, x) == {"conv": 4}
    assert fused.params["blocks"]["block"]["kernel"].shape == (3, 3, 3, 4, 4)
    assert fused.report.totals.kernels["conv"] == 4
    wide = image(2, 8, 5, 3)
    assert gap(apply, variables, fused, wide) < 1e-12


def test_a_module_called_twice_has_one_kernel(x64):
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x):
            block = RepVGGBlock(3, name="shared")
            return block(block(x))

    module, x = Twice(), image(1, 6, 6, 3)
    variables = linen(module, x)
    fused = fuse(module.apply, variables, x)
    assert error(module.apply(variables, x), fused.apply(fused.params, x)) < 1e-12
    assert set(fused.params) == {"shared"}
    assert len(jax.tree.leaves(fused.params)) == 2


def test_trees_keys_integers_and_static_leaves(x64):
    def apply(variables, batch, train, *, scale):
        assert train is False
        x = batch["x"] @ variables["w"] + batch["x"]
        noise = jax.random.normal(batch["key"], x.shape)
        picked = variables["table"][batch["index"]]
        return {"y": jnp.tanh(x * scale), "n": noise, "p": picked, "i": batch["index"] + 1}, 7

    variables = {"w": image(4, 4), "table": jnp.arange(5), "name": "net", "rate": 0.5}
    batch = {"x": image(2, 4), "key": jax.random.key(0), "index": jnp.array([1, 3])}
    bound = functools.partial(apply, scale=2.0)
    fused = fuse(bound, variables, batch, False)
    expected, found = bound(variables, batch, False), fused.apply(fused.params, batch, False)
    assert jax.tree.structure(expected) == jax.tree.structure(found)
    for one, two in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        assert np.allclose(one, two, rtol=1e-12)
    assert fused.params["table"].dtype == variables["table"].dtype


def test_effects_happen_as_often_as_before(x64):
    seen = []

    def apply(w, x):
        y = x @ w
        jax.debug.callback(lambda value: seen.append(value.shape), y)
        return y + x

    fused = fuse(apply, image(4, 4), image(2, 4))
    fused.apply(fused.params, image(2, 4))
    jax.effects_barrier()
    assert seen == [(2, 4)]


def test_wrong_variables_and_parameters_are_named(case):
    _, variables, x, fused = case
    wrong = jax.tree.map(lambda leaf: leaf[..., :1], variables)
    with pytest.raises(ValueError, match=r"stem/conv3/kernel has shape .* expected \(3, 3, 3, 8\)"):
        fused.fuse_params(wrong)
    with pytest.raises(ValueError, match="structure"):
        fused.fuse_params(variables["params"])
    with pytest.raises(ValueError, match="lack head/kernel"):
        fused.apply({**fused.params, "head": {"bias": 0}}, x)


def test_report_as_data_and_text(case):
    *_, fused = case
    report = fused.report
    paths = [region.path for region in report.regions]
    assert paths == ["stem", "stage0_0", "stage0_1", "head"]
    stem = report.regions[0]
    assert stem.merged
    assert stem.operations["conv"] == 2
    assert stem.kernels == {"conv": 1, "add": 1}
    assert stem.macs_after == 4 * 4 * 8 * 27
    assert stem.parameters_after == 27 * 8 + 8
    assert report.totals.kernels["conv"] == 3
    assert "as written" in str(report)
    assert "total" in str(report)


UNIT = {jnp.float32: 2.0**-24, jnp.bfloat16: 2.0**-9}


@pytest.mark.parametrize("compute", [jnp.float32, jnp.bfloat16])
def test_lower_precision_is_within_the_bound(compute):
    class Block(nn.Module):
        @nn.compact
        def __call__(self, x):
            def norm(name):
                return nn.BatchNorm(use_running_average=True, name=name, dtype=compute)

            y = norm("n3")(nn.Conv(8, (3, 3), name="c3", dtype=compute)(x))
            return y + norm("n1")(nn.Conv(8, (1, 1), name="c1", dtype=compute)(x)) + norm("n0")(x)

    module = Block()
    x = np.asarray(image(2, 8, 8, 8), np.float32)
    variables = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), linen(module, x))
    x = jnp.asarray(x).astype(compute)
    fused = fuse(module.apply, variables, x)
    program = str(jax.make_jaxpr(fused.apply)(fused.params, x))
    assert program.count("conv_general_dilated[") == 1
    assert {leaf.dtype for leaf in jax.tree.leaves(fused.params)} == {jnp.dtype(jnp.float32)}
    found = fused.apply(fused.params, x)
    assert found.dtype == module.apply(variables, x).dtype == compute
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), variables)
        exact = fuse(lambda v, x: Exact().apply(v, x), wide, jnp.asarray(x, jnp.float64))
        kernel = np.asarray(exact.params["c1"]["kernel"])
        bias = np.asarray(exact.params["c1"]["bias"])
        inputs = np.pad(np.asarray(x, np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
        value, bound = bias, np.abs(bias)
        for i in range(3):
            for j in range(3):
                part = inputs[:, i : i + 8, j : j + 8]
                value = value + part @ kernel[i, j]
                bound = bound + np.abs(part) @ np.abs(kernel[i, j])
    worst = (np.abs(np.asarray(found, np.float64) - value) / bound).max()
    assert worst <= 12 * UNIT[compute]


class Exact(nn.Module):
    """The same block without a compute type."""

    @nn.compact
    def __call__(self, x):
        def norm(name):
            return nn.BatchNorm(use_running_average=True, name=name)

        y = norm("n3")(nn.Conv(8, (3, 3), name="c3")(x))
        return y + norm("n1")(nn.Conv(8, (1, 1), name="c1")(x)) + norm("n0")(x)


def test_strict_promotion(strict):
    module, x = RepVGG(), jnp.zeros((1, 8, 8, 3), jnp.float32)
    variables = jax.tree.map(
        lambda a: jnp.ones(a.shape, a.dtype), jax.eval_shape(module.init, jax.random.key(0), x)
    )
    fused = fuse(module.apply, variables, x)
    assert jnp.allclose(fused.apply(fused.params, x), module.apply(variables, x))
