"""Networks of the field, written plainly in Flax Linen: exact, and as few kernels as can be."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from tests.tracing.checks import check, image, linen

pytestmark = pytest.mark.usefixtures("x64")


def norm(name):
    return nn.BatchNorm(use_running_average=True, name=name)


def conv(features, size, strides=1, *, name, groups=1, bias=False, dilation=1, padding=None):
    if padding is None:
        padding = [((k - 1) * dilation // 2,) * 2 for k in size]
    return nn.Conv(
        *(features, size, strides),
        padding=padding,
        name=name,
        feature_group_count=groups,
        use_bias=bias,
        kernel_dilation=dilation,
    )


class RepVGGBlock(nn.Module):
    features: int
    strides: int = 1
    groups: int = 1

    @nn.compact
    def __call__(self, x):
        y = norm("norm3")(
            conv(self.features, (3, 3), self.strides, name="conv3", groups=self.groups)(x)
        )
        y += norm("norm1")(
            conv(self.features, (1, 1), self.strides, name="conv1", groups=self.groups)(x)
        )
        if self.strides == 1 and x.shape[-1] == self.features:
            y += norm("identity")(x)
        return nn.relu(y)


class RepVGG(nn.Module):
    groups: int = 1
    stages: int = 2

    @nn.compact
    def __call__(self, x):
        x = RepVGGBlock(8, 2, name="stem")(x)
        for stage in range(self.stages):
            x = RepVGGBlock(8, 2, self.groups, name=f"stage{stage}_0")(x)
            x = RepVGGBlock(8, 1, self.groups, name=f"stage{stage}_1")(x)
        return nn.Dense(5, name="head")(x.mean((1, 2)))


class MobileOneBlock(nn.Module):
    features: int
    strides: int = 1

    @nn.compact
    def __call__(self, x):
        inside = x.shape[-1]
        y = norm("scale_dw")(conv(inside, (1, 1), self.strides, name="dw1", groups=inside)(x))
        for k in range(2):
            z = conv(inside, (3, 3), self.strides, name=f"dw3_{k}", groups=inside)(x)
            y += norm(f"norm_dw{k}")(z)
        if self.strides == 1:
            y += norm("skip_dw")(x)
        x = nn.relu(y)
        y = sum(
            norm(f"norm_pw{k}")(conv(self.features, (1, 1), name=f"pw{k}")(x)) for k in range(3)
        )
        if inside == self.features:
            y += norm("skip_pw")(x)
        return nn.relu(y)


class DiverseBranch(nn.Module):
    """Ding et al., 2021: 1x1, KxK, 1x1-KxK with a border of the first bias, 1x1-average."""

    @nn.compact
    def __call__(self, x):
        c = 6
        y = norm("n0")(conv(c, (3, 3), name="origin")(x))
        y += norm("n1")(conv(c, (1, 1), name="one")(x))
        z = norm("n2a")(conv(x.shape[-1], (1, 1), name="kxk1")(x))
        z = self.bordered(z, "n2a")
        y += norm("n2b")(conv(c, (3, 3), name="kxk3", padding="VALID")(z))
        z = norm("n3a")(conv(c, (1, 1), name="avg1")(x))
        z = self.bordered(z, "n3a")
        y += norm("n3b")(nn.avg_pool(z, (3, 3)))
        return nn.relu(y)

    def bordered(self, z, name):
        p, s = self.variables["params"][name], self.variables["batch_stats"][name]
        border = p["bias"] - s["mean"] * p["scale"] / jnp.sqrt(s["var"] + 1e-5)
        return jnp.pad(z - border, ((0, 0), (1, 1), (1, 1), (0, 0))) + border


class DilatedLarge(nn.Module):
    """UniRepLKNet, 2024: parallel dilated depthwise kernels."""

    @nn.compact
    def __call__(self, x):
        c = x.shape[-1]
        y = norm("origin_norm")(conv(c, (9, 9), name="origin", groups=c)(x))
        for k, d in ((5, 1), (5, 2), (3, 3), (3, 4)):
            z = conv(c, (k, k), name=f"k{k}d{d}", groups=c, dilation=d)(x)
            y += norm(f"norm{k}{d}")(z)
        return nn.gelu(y)


class RepMixer(nn.Module):
    """FastViT, 2023: x + scale * (mixer(x) - norm(x))."""

    @nn.compact
    def __call__(self, x):
        c = x.shape[-1]
        mixed = norm("mixer_norm3")(conv(c, (3, 3), name="mixer3", groups=c)(x))
        mixed += norm("mixer_norm1")(conv(c, (1, 1), name="mixer1", groups=c)(x))
        mixed += norm("mixer_skip")(x)
        scale = self.param("layer_scale", nn.initializers.ones, (c,), jnp.float64)
        x = x + scale * (mixed - norm("norm")(x))
        return nn.gelu(x)


class Bottleneck(nn.Module):
    @nn.compact
    def __call__(self, x):
        y = nn.relu(norm("n1")(conv(4, (1, 1), name="c1")(x)))
        y = nn.relu(norm("n2")(conv(4, (3, 3), 2, name="c2")(y)))
        y = norm("n3")(conv(16, (1, 1), name="c3")(y))
        return nn.relu(y + norm("n4")(conv(16, (1, 1), 2, name="shortcut")(x)))


class Inception(nn.Module):
    @nn.compact
    def __call__(self, x):
        a = nn.relu(norm("na")(conv(4, (1, 1), name="a")(x)))
        b = nn.relu(norm("nb0")(conv(4, (1, 1), name="b0")(x)))
        b = nn.relu(norm("nb1")(conv(4, (3, 3), name="b1")(b)))
        c = nn.avg_pool(x, (3, 3), (1, 1), "SAME")
        c = nn.relu(norm("nc")(conv(4, (1, 1), name="c")(c)))
        return jnp.concatenate([a, b, c], -1)


class Stacked(nn.Module):
    """Two branches stacked on channels before one norm: ACNet-like asymmetric kernels too."""

    @nn.compact
    def __call__(self, x):
        a = conv(4, (3, 3), name="square")(x)
        a += conv(4, (1, 3), name="row")(x) + conv(4, (3, 1), name="column")(x)
        b = conv(4, (3, 3), name="other", bias=True)(x)
        return nn.relu(norm("n")(jnp.concatenate([a, b], -1)))


class Padded(nn.Module):
    """Explicit padding, cropping and a strided view before the convolution."""

    @nn.compact
    def __call__(self, x):
        a = conv(4, (3, 3), name="a", padding="VALID")(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))))
        b = conv(4, (1, 1), name="b")(jnp.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0))))
        return nn.relu(a + b[:, 2:-2, 2:-2])


class LowRank(nn.Module):
    """LoRA: a dense layer with an adapter, and a convolution with one."""

    @nn.compact
    def __call__(self, x):
        y = nn.Dense(12, name="dense")(x)
        y += 0.5 * nn.Dense(12, name="up", use_bias=False)(
            nn.Dense(2, name="down", use_bias=False)(x)
        )
        z = nn.relu(y)
        w = conv(12, (3, 3), name="conv")(z)
        w += 2.0 * conv(12, (1, 1), name="conv_up")(conv(2, (3, 3), name="conv_down")(z))
        return nn.relu(w)


FAMILIES = {
    "repvgg": (RepVGG(), (2, 16, 16, 3), {"conv": 10, "dot": 1}, {"conv": 5, "dot": 1}),
    "repvgg grouped": (RepVGG(4), (1, 16, 16, 3), {"conv": 10, "dot": 1}, {"conv": 5, "dot": 1}),
    "mobileone": (MobileOneBlock(6), (1, 8, 8, 6), {"conv": 6}, {"conv": 2}),
    "mobileone strided": (MobileOneBlock(8, 2), (1, 9, 8, 6), {"conv": 6}, {"conv": 2}),
    "diverse branch": (DiverseBranch(), (1, 8, 8, 4), {"conv": 5, "pool": 1}, {"conv": 1}),
    "dilated large kernel": (DilatedLarge(), (1, 12, 12, 3), {"conv": 5}, {"conv": 1}),
    "repmixer": (RepMixer(), (1, 8, 8, 6), {"conv": 2}, {"conv": 1}),
    "resnet bottleneck": (Bottleneck(), (1, 8, 8, 8), {"conv": 4}, {"conv": 4}),
    "inception": (Inception(), (1, 8, 8, 5), {"conv": 4, "pool": 1}, {"conv": 4, "pool": 1}),
    "stacked": (Stacked(), (1, 8, 8, 3), {"conv": 4}, {"conv": 1}),
    "padded": (Padded(), (1, 8, 8, 3), {"conv": 2}, {"conv": 1}),
    "low rank": (LowRank(), (1, 6, 6, 8), {"conv": 3, "dot": 3}, {"conv": 1, "dot": 1}),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_family(name):
    module, shape, before, after = FAMILIES[name]
    x = image(*shape)
    fused = check(module.apply, linen(module, x), x, before=before, after=after)
    norms = [
        path
        for path in jax.tree_util.tree_flatten_with_path(fused.params)[0]
        if "mean" in str(path)
    ]
    assert not norms
