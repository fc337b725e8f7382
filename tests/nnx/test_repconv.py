"""NNX blocks compute what the Linen blocks compute, in inference and in training."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import repjax.nnx
from repjax import blocks
from repjax.branches import AveragePool, Fixed, KxK, Online, Pointwise, Scale, Sequence, Shift
from repjax.branches import Identity as Input
from tests.blocks.cases import TABLE, Case, largest, random_variables, same
from tests.evaluate import evaluated
from tests.nnx.pairs import arrays, fill, laid_over

X = np.random.default_rng(0).normal(size=(2, 9, 8, 4))

BLOCKS: dict[str, tuple[str, dict[str, Any]]] = {
    "residual": ("ResidualConv", {}),
    "repvgg": ("RepVGGBlock", {}),
    "repvgg, strided, gated": ("RepVGGBlock", {"strides": [2, 1], "squeeze_excite": 3}),
    "mobileone": ("MobileOneBlock", {"copies": 3, "groups": 2, "dilation": 2}),
    "yolo": ("YOLORepConv", {}),
    "qarepvgg": ("QARepVGGBlock", {"version": 1, "average": True}),
    "dbb": ("DiverseBranchBlock", {"padding": 1}),
    "acnet": ("ACBlock", {"affine": False}),
    "orepa": ("OREPABlock", {}),
    "orepa pointwise": ("OREPAPointwiseBlock", {}),
    "orepa large": ("OREPALargeBlock", {"branched": False}),
    "orepa repvgg": ("OREPARepVGGBlock", {}),
    "fixed, shift, scale": (
        "RepConv",
        {
            "branches": [
                KxK(3),
                Scale(Sequence(Pointwise(), Fixed("laplacian")), bias=True),
                Sequence(Shift(Input()), KxK(1, bias=False)),
                Online(Sequence(Pointwise(), AveragePool(2))),
            ],
            "norm": None,
        },
    ),
}


def forms(linen: Any, model: nnx.Module, variables: Any, x: Any) -> None:
    """Assert that both forms agree: inference, training, statistics, gradients."""
    fill(model, variables)
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def loss(params: Any, rest: Any, x: Any) -> Any:
        model = nnx.merge(graph, params, rest, copy=True)
        model.train()
        y = model(x)
        _, _, updated = nnx.split(model, nnx.Param, ...)
        return (y**2).sum(), (y, updated)

    def linen_loss(params: Any, others: Any, x: Any) -> Any:
        y, updated = linen.apply(
            {"params": params, **others}, x, train=True, mutable=["batch_stats"]
        )
        return (y**2).sum(), (y, updated)

    @evaluated
    def run(params: Any, rest: Any, variables: Any, x: Any) -> Any:
        others = {name: tree for name, tree in variables.items() if name != "params"}
        found = jax.grad(loss, has_aux=True)(params, rest, x)
        wanted = jax.grad(linen_loss, has_aux=True)(variables["params"], others, x)
        inference = nnx.merge(graph, params, rest)
        inference.eval()
        return found, wanted, inference(x), linen.apply(variables, x)

    found, wanted, y, linen_y = run(params, rest, variables, x)
    assert y.dtype == linen_y.dtype == np.float64
    assert largest(y - linen_y) <= 1e-12 * largest(linen_y)
    (grads, (y, updated)), (linen_grads, (linen_y, linen_updated)) = found, wanted
    assert largest(y - linen_y) <= 1e-12 * largest(linen_y)
    assert same(nnx.to_pure_dict(grads), linen_grads, 1e-11)
    statistics = nnx.to_pure_dict(nnx.filter_state(updated, nnx.BatchStat))
    assert same(statistics, linen_updated.get("batch_stats", {}), 1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("case", TABLE[::2], ids=str)
def test_every_branch_kind_norm_geometry_and_dimension(case: Case) -> None:
    linen = case.block(param_dtype=float, momentum=0.75)
    fields = {name: getattr(linen, name) for name in ("branches", "norm", "dims", "strides")}
    fields |= {name: getattr(linen, name) for name in ("groups", "padding", "dilation")}
    x = jnp.asarray(case.images()[0])
    model = repjax.nnx.RepConv(
        x.shape[-1],
        linen.features,
        **fields,
        param_dtype=float,
        momentum=0.75,
        rngs=nnx.Rngs(0),
    )
    forms(linen, model, case.variables(), x)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", BLOCKS)
def test_every_block(name: str) -> None:
    kind, fields = BLOCKS[name]
    linen = getattr(blocks, kind)(4, param_dtype=float, **fields)
    model = getattr(repjax.nnx, kind)(4, 4, param_dtype=float, rngs=nnx.Rngs(0), **fields)
    forms(linen, model, random_variables(linen, X), X)


def test_arrays_have_the_kinds_names_types_and_beginnings_of_linen() -> None:
    fields: dict[str, Any] = {
        "branches": (KxK(3), Sequence(Pointwise(), Fixed("mean"))),
        "param_dtype": jnp.bfloat16,
        "norm_scale_init": nnx.initializers.constant(0.5),
    }
    variables = blocks.RepConv(4, **fields).init(jax.random.key(0), X)
    model = repjax.nnx.RepConv(4, 4, **fields, rngs=nnx.Rngs(0))
    described = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), laid_over(variables))
    state = nnx.to_pure_dict(nnx.state(model))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state) == described
    kinds = {"params": nnx.Param, "batch_stats": nnx.BatchStat, "fixed": repjax.nnx.Fixed}
    for collection, kind in kinds.items():
        own = nnx.to_pure_dict(nnx.state(model, kind))
        assert jax.tree.structure(own) == jax.tree.structure(variables[collection])
        if kind is not nnx.Param:
            assert same(own, variables[collection], 0)
    [node] = arrays(model).values()
    assert (node["conv3x3"]["norm"]["scale"] == 0.5).all()


def test_modes() -> None:
    model = nnx.List([repjax.nnx.RepVGGBlock(4, 4, rngs=nnx.Rngs(0))])
    before = arrays(model)
    assert not model[0].conv.use_running_average
    view = nnx.view(model, use_running_average=True)
    y = view[0](X)
    assert same(arrays(model), before, 0)
    model.eval()
    assert largest(model[0](X) - y) == 0
    assert same(arrays(model), before, 0)
    model.train()
    model[0](X)
    after = arrays(model)
    assert not same(after, before, 1e-3)
    mean = after[0]["conv"]["y=norm(conv3x3)+norm(conv1x1)+norm(identity)"]["identity"]["norm"]
    assert np.allclose(mean["mean"], 0.1 * X.mean((0, 1, 2)), atol=1e-6)
    begun = repjax.nnx.RepConv(4, 4, use_running_average=True, rngs=nnx.Rngs(0))
    assert begun.use_running_average


def test_low_precision_is_that_of_linen() -> None:
    fields = {"dtype": jnp.bfloat16}
    linen = blocks.RepVGGBlock(4, **fields)
    model = repjax.nnx.RepVGGBlock(4, 4, **fields, rngs=nnx.Rngs(0))
    variables = linen.init(jax.random.key(0), X)
    fill(model, variables)
    y, _ = linen.apply(variables, X, train=True, mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16
    assert largest(model(X).astype(float) - y.astype(float)) == 0
