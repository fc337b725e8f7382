"""Native equals deployed after `fuse_params`, for every block of the table."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import repjax
from tests.blocks.cases import (
    TABLE,
    Case,
    cast,
    convolutions,
    described,
    largest,
    random_tree,
)
from tests.evaluate import evaluated

# Unit roundoffs, and the constant of the a-priori bound c * u * (|K| * |x| + |b|).
ROUNDOFF = {"float32": 2.0**-24, "bfloat16": 2.0**-8}
CONSTANT = 12.0
# Over a family of cases, by how much the root-mean-square error may exceed that of native.
FACTOR = 2.0

every_case = pytest.mark.parametrize("case", TABLE, ids=str)


def low_precision(exact: Any) -> dict[str, Any]:
    """The same variables in float32 and bfloat16, statistics in float32 as Flax keeps them."""
    return {name: cast(exact, jnp.dtype(name), stats=np.float32) for name in ROUNDOFF}


def computed(case: Case) -> Any:
    """Outputs of all forms and precisions, from one program: compiling is most of the cost."""

    def run(exact: Any, low: dict[str, Any], images: Any) -> Any:
        fused = repjax.fuse_params(exact)
        native, deployed = case.block(), case.block().deploy()
        magnitude = jax.tree.map(jnp.abs, fused)
        outputs = {}
        for name, variables in low.items():
            block = case.block(dtype=name, param_dtype=name).deploy()
            tree = repjax.fuse_params(variables)
            outputs[name] = block.apply(tree, images[0].astype(name))
        return (
            [native.apply(exact, x) for x in images],
            [deployed.apply(fused, x) for x in images],
            deployed.apply(magnitude, jnp.abs(images[0])),
            outputs,
        )

    exact = case.variables()
    return jax.device_get(evaluated(run)(exact, low_precision(exact), case.images()))


@every_case
@pytest.mark.usefixtures("x64")
def test_native_equals_deployed(case: Case) -> None:
    native, deployed, magnitude, low = computed(case)
    for truth, found in zip(native, deployed, strict=True):
        assert truth.size
        assert truth.dtype == np.float64
        assert truth.shape == found.shape
        assert largest(found - truth) <= 1e-12 * largest(truth)
    for name, roundoff in ROUNDOFF.items():
        assert low[name].dtype == jnp.dtype(name)
        error = np.abs(low[name].astype(np.float64) - native[0])
        assert (error <= CONSTANT * roundoff * magnitude).all(), name


@pytest.mark.usefixtures("x64")
def test_errors_are_on_average_those_of_the_native_form() -> None:
    """A single correct fold may be twice as far off as native; a family of them may not."""
    errors: dict[str, list[Any]] = {name: [] for name in ROUNDOFF}
    for case in TABLE[::6]:
        exact, x = case.variables(), case.images()[0]

        def run(exact: Any, low: dict[str, Any], x: Any, case: Case = case) -> Any:
            outputs = {}
            for name, variables in low.items():
                block, data = case.block(dtype=name, param_dtype=name), x.astype(name)
                fused = repjax.fuse_params(variables)
                outputs[name] = block.apply(variables, data), block.deploy().apply(fused, data)
            return case.block().apply(exact, x), outputs

        truth, low = jax.device_get(evaluated(run)(exact, low_precision(exact), x))
        for name, outputs in low.items():
            relative = [(y.astype(np.float64) - truth) / largest(truth) for y in outputs]
            errors[name].append([(error**2).mean() for error in relative])
    for name, squares in errors.items():
        native, deployed = np.sqrt(np.mean(squares, axis=0))
        assert 0 < deployed <= FACTOR * native, name


@every_case
def test_fuse_params_keeps_the_contract_of_the_deploy_twin(case: Case) -> None:
    for dtype in (jnp.float32, jnp.bfloat16):
        block = case.block(param_dtype=dtype)
        x = jax.ShapeDtypeStruct(case.images()[0].shape, dtype)
        variables = jax.eval_shape(block.init, jax.random.key(0), x)
        promised = jax.eval_shape(block.deploy().init, jax.random.key(0), x)
        fused = jax.eval_shape(repjax.fuse_params, variables)
        assert described(fused) == described(promised)


@every_case
def test_one_convolution_is_left(case: Case) -> None:
    block, x = case.block(), jnp.zeros(case.images()[0].shape)
    variables = case.variables()
    kernels = sum(path[-1].key == "kernel" for path, _ in jax.tree.leaves_with_path(variables))
    fused = jax.eval_shape(repjax.fuse_params, variables)
    assert convolutions(block.apply, variables, x) == kernels
    assert convolutions(block.deploy().apply, fused, x) == 1
    assert convolutions(repjax.fuse_params, variables) == 0


@every_case
@pytest.mark.usefixtures("x64")
def test_unfused_network_computes_the_edited_function(case: Case) -> None:
    like, x = case.variables(), case.images()[0]
    edited = random_tree(jax.eval_shape(repjax.fuse_params, like), seed=2)
    if not case.branch_set.absorbs(case.norm):
        with pytest.raises(repjax.NotFusableError, match=r"cannot unfuse:\n  y="):
            repjax.unfuse_params(edited, like)
        return

    @evaluated
    def run(edited: Any, like: Any, x: Any) -> Any:
        unfused = repjax.unfuse_params(edited, like)
        outputs = case.block().apply(unfused, x), case.block().deploy().apply(edited, x)
        return unfused, repjax.fuse_params(unfused), outputs

    unfused, again, (native, deployed) = run(edited, like, x)
    assert described(unfused) == described(like)
    assert largest(native - deployed) <= 1e-12 * largest(deployed)
    for name, leaf in edited["params"].items():
        assert largest(again["params"][name] - leaf) <= 1e-12 * max(1, largest(leaf))


@pytest.mark.usefixtures("x64")
def test_the_bound_is_no_formality() -> None:
    """A kernel that is one tap off breaks the bound of every precision by far."""
    case = TABLE[0]
    variables, x = case.variables(), jnp.asarray(case.images()[0])
    fused = repjax.fuse_params(variables)["params"]
    deployed = evaluated(case.block().deploy().apply)
    shifted = {**fused, "kernel": jnp.roll(fused["kernel"], 1, axis=0)}
    magnitude = deployed({"params": jax.tree.map(np.abs, fused)}, np.abs(x))
    wanted = evaluated(case.block().apply)(variables, x)
    error = np.abs(deployed({"params": shifted}, x) - wanted)
    assert (error / magnitude).max() > CONSTANT * ROUNDOFF["bfloat16"]
