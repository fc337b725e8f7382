"""Nothing depends on a framework or a layout: NNX, Equinox, plain JAX; NCHW; 1-D to 3-D."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax import lax

from tests.tracing.checks import check, image, random_like

pytestmark = pytest.mark.usefixtures("x64")


class NNXBlock(nnx.Module):
    def __init__(self, features, rngs):
        def norm():
            return nnx.BatchNorm(features, use_running_average=True, rngs=rngs)

        self.conv3 = nnx.Conv(features, features, (3, 3), use_bias=False, rngs=rngs)
        self.conv1 = nnx.Conv(features, features, (1, 1), use_bias=False, rngs=rngs)
        self.norms = nnx.List([norm(), norm(), norm()])

    def __call__(self, x):
        norm3, norm1, norm0 = self.norms
        return nnx.relu(norm3(self.conv3(x)) + norm1(self.conv1(x)) + norm0(x))


class NNXNet(nnx.Module):
    def __init__(self, rngs):
        self.blocks = nnx.List([NNXBlock(4, rngs), NNXBlock(4, rngs)])
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((1, 2)))


def test_nnx_module_is_the_variables():
    module = random_like(nnx.eval_shape(lambda: NNXNet(nnx.Rngs(0))))
    fused = check(
        lambda m, x: m(x),
        module,
        image(1, 6, 6, 4),
        before={"conv": 4, "dot": 1},
        after={"conv": 2, "dot": 1},
    )
    assert set(fused.params) == {"blocks", "head"}
    assert set(fused.params["blocks"]["0"]) == {"kernel", "bias"}


def test_nnx_state_is_the_variables():
    definition, state = nnx.split(nnx.eval_shape(lambda: NNXNet(nnx.Rngs(0))))
    check(
        lambda state, x: nnx.merge(definition, state)(x),
        random_like(state),
        image(1, 6, 6, 4),
        after={"conv": 2, "dot": 1},
    )


class EquinoxBlock(eqx.Module):
    conv3: eqx.nn.Conv2d
    conv1: eqx.nn.Conv2d
    scale: jax.Array

    def __init__(self, features, key):
        self.conv3 = eqx.nn.Conv2d(features, features, 3, padding=1, key=key)
        self.conv1 = eqx.nn.Conv2d(features, features, 1, key=key)
        self.scale = jnp.ones((features, 1, 1))

    def __call__(self, x):  # (channels, height, width), one image
        return jax.nn.relu(self.scale * (self.conv3(x) + self.conv1(x)) + x)


def test_equinox_module_of_one_image():
    module = random_like(eqx.filter_eval_shape(EquinoxBlock, 4, jax.random.key(0)))
    fused = check(lambda m, x: m(x), module, image(4, 6, 6), before={"conv": 2}, after={"conv": 1})
    assert set(fused.params) <= {"conv3", "conv1"}


def test_equinox_module_under_vmap():
    module = random_like(eqx.filter_eval_shape(EquinoxBlock, 4, jax.random.key(0)))
    check(lambda m, x: jax.vmap(m)(x), module, image(3, 4, 6, 6), after={"conv": 1})


SPATIAL = {1: "H", 2: "HW", 3: "DHW"}


@pytest.mark.parametrize("layout", ["NC*", "N*C", "C*N", "*NC"])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_layouts(dims, layout):
    words = layout.replace("*", SPATIAL[dims])
    numbers = (words, SPATIAL[dims] + "IO", words)
    shape = [{"N": 2, "C": 4}.get(letter, 5) for letter in words]
    vector = [-1 if letter == "C" else 1 for letter in words]

    def net(w, x):
        y = lax.conv_general_dilated(x, w["k3"], (1,) * dims, "SAME", dimension_numbers=numbers)
        y = y * w["scale"].reshape(vector) - w["shift"].reshape(vector)
        y += lax.conv_general_dilated(x, w["k1"], (1,) * dims, "SAME", dimension_numbers=numbers)
        return jnp.tanh(y + x)

    w = {
        "k3": image(*(3,) * dims, 4, 4),
        "k1": image(*(1,) * dims, 4, 4, seed=2),
        "scale": image(4, seed=3),
        "shift": image(4, seed=4),
    }
    check(net, w, image(*shape), before={"conv": 2}, after={"conv": 1})


@pytest.mark.parametrize("order", ["OIHW", "HWIO", "IOHW"])
def test_kernel_layouts_and_a_layout_that_changes(order):
    shape = [{"O": 4, "I": 4, "H": 3, "W": 1}[letter] for letter in order]
    other = [{"O": 4, "I": 4, "H": 3, "W": 3}[letter] for letter in order]

    def net(w, x):
        y = lax.conv_general_dilated(
            x, w["a"], (1, 1), ((1, 1), (0, 0)), dimension_numbers=("NCHW", order, "NHWC")
        )
        z = lax.conv_general_dilated(
            *(x.transpose(0, 2, 3, 1), w["b"], (1, 1), ((1, 1), (1, 1))),
            dimension_numbers=("NHWC", order, "NHWC"),
        )
        return jnp.tanh(y + z)

    w = {"a": image(*shape), "b": image(*other, seed=2)}
    check(net, w, image(2, 4, 6, 5), before={"conv": 2}, after={"conv": 1})


def test_transposed_convolution_with_norm_and_projection():
    def net(w, x):
        y = lax.conv_transpose(x, w["k"], (2, 2), "SAME")
        y = (y - w["mean"]) * w["scale"]
        return jnp.tanh(y @ w["p"])

    w = {
        "k": image(4, 4, 3, 5),
        "mean": image(5),
        "scale": image(5, seed=2),
        "p": image(5, 4, seed=3),
    }
    fused = check(net, w, image(2, 5, 6, 3), before={"conv": 1, "dot": 1}, after={"conv": 1})
    assert fused.params["kernel"].shape == (4, 4, 3, 4)


def test_transposed_branches_of_one_dilation():
    def net(w, x):
        wide = lax.conv_general_dilated(
            *(x, w["a"], (1, 1), ((2, 2), (2, 2))),
            lhs_dilation=(2, 2),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        narrow = lax.conv_general_dilated(
            *(x, w["b"], (1, 1), ((0, 0), (0, 0))),
            lhs_dilation=(2, 2),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return jnp.tanh(wide + narrow)

    w = {"a": image(5, 5, 3, 4), "b": image(1, 1, 3, 4)}
    check(net, w, image(1, 5, 6, 3), before={"conv": 2}, after={"conv": 1})


def test_dense_chain_and_adapter_on_tokens():
    def net(w, x):
        y = jnp.einsum("blc,cd->bld", x, w["w"]) + w["b"]
        y += jnp.einsum("blr,rd->bld", jnp.einsum("blc,cr->blr", x, w["down"]), w["up"]) * 0.5
        return jax.nn.gelu(y)

    w = {"w": image(8, 8), "b": image(8), "down": image(8, 2), "up": image(2, 8)}
    fused = check(net, w, image(2, 3, 8), before={"dot": 3}, after={"dot": 1})
    assert {leaf.shape for leaf in jax.tree.leaves(fused.params)} == {(8, 8), (8,)}


def test_more_batch_axes_and_reshapes_of_them():
    def net(w, x):  # (A, B, H, W, C)
        a, b, *rest = x.shape
        y = lax.conv_general_dilated(
            *(x.reshape(a * b, *rest), w["k"], (1, 1), "SAME"),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        y = y.reshape(a, b, *rest) * w["scale"] + w["bias"]
        return jnp.tanh(y + x)

    w = {"k": image(3, 3, 4, 4), "scale": image(4), "bias": image(4, seed=2)}
    fused = check(net, w, image(2, 3, 5, 5, 4), before={"conv": 1}, after={"conv": 1})
    assert len(jax.tree.leaves(fused.params)) == 2
