"""`RepConv`: a Linen block made of branch descriptions, or the one convolution they fold to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax import lax
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike

from repjax.algebra.padding import Padding, padding_pairs, per_axis
from repjax.blocks.fields import (
    require_branches,
    require_geometry,
    require_outputs_on,
    require_short,
    require_whole,
)
from repjax.blocks.linen_scope import BranchNode, LinenScope, Settings
from repjax.branches import (
    Branch,
    Geometry,
    Identity,
    KxK,
    Norm,
    Pointwise,
    Sum,
    equation,
    require_kernel,
)
from repjax.branches.children import require_outputs
from repjax.branches.reader import PREFIX, shown


class RepConv(nn.Module):
    """A sum of branches when trained, one convolution when deployed.

    ``apply(variables, x)`` is inference; ``apply(variables, x, train=True,
    mutable=["batch_stats"])`` normalizes with the batch's statistics and updates the running
    ones. `repjax.fuse_params` turns its variables into those of ``deployed=True``. Data are
    (batch..., spatial..., channels), with any number of batch axes.

    Args:
        features: output channels.
        branches: what is added up; see `repjax.branches`. ``(KxK(3),) * 4`` is four copies.
        norm: batch norm per "branch", once after the "sum", or None.
        dims: number of spatial axes.
        strides: one number or one per axis.
        padding: explicit padding, in pixels, *of the fused convolution*: one number, one per
            axis or (low, high) pairs. None keeps the size where strides are 1. Every branch
            is padded or cropped to meet it tap by tap.
        dilation: of the whole block; a branch may have its own on top.
        groups: channel groups of every convolution.
        use_bias: whether convolutions have a bias; None means where there is no norm.
        epsilon: of the norms; it is written in the name of the node where it is not 1e-5.
        momentum: of the running statistics; PyTorch's 0.1 is 0.9 here.
        axis_name: mapped axis over which batch statistics are averaged (`shard_map`, `vmap`).
        dtype: compute type; None promotes.
        param_dtype: type of the parameters.
        precision: of the convolutions, see `jax.lax.Precision`.
        kernel_init: initializer of kernels.
        bias_init: initializer of biases.
        scale_init: initializer of trained scales (`Scale`, layer scale).
        norm_scale_init: initializer of the norms' scales.
        deployed: be the single convolution, with parameters `kernel` and `bias`.

    Raises:
        ValueError: branches that do not fit each other, the channels or the strides.

    Source: Ding et al., RepVGG, CVPR 2021, and the papers named by the branches.

    Example:
        >>> import jax, repjax
        >>> block = RepConv(8)
        >>> x = jnp.ones((1, 9, 9, 8))
        >>> variables = block.init(jax.random.key(0), x)
        >>> deployed = repjax.fuse_params(variables)
        >>> y = block.deploy().apply(deployed, x)
        >>> bool(jnp.allclose(y, block.apply(variables, x), atol=1e-5))
        True
    """

    features: int
    branches: Sequence[Branch] = (KxK(3), Pointwise(), Identity())
    norm: Literal["branch", "sum"] | None = "branch"
    dims: int = 2
    strides: int | Sequence[int] = 1
    padding: Padding | None = None
    dilation: int | Sequence[int] = 1
    groups: int = 1
    use_bias: bool | None = None
    epsilon: float = 1e-5
    momentum: float = 0.9
    axis_name: str | None = None
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32
    precision: lax.PrecisionLike = None
    kernel_init: Initializer = nn.initializers.lecun_normal()
    bias_init: Initializer = nn.initializers.zeros_init()
    scale_init: Initializer = nn.initializers.ones_init()
    norm_scale_init: Initializer = nn.initializers.ones_init()
    deployed: bool = False

    def deploy(self) -> RepConv:
        """The deploy twin: the same block as one convolution."""
        return self.clone(deployed=True)

    def branch(self, in_features: int) -> Branch:
        """The one branch, resolved, that this block is for that many input channels.

        Raises:
            ValueError: fields that are not what they may be.
        """
        require_whole("features", self.features)
        require_whole("dims", self.dims)
        require_branches(self.branches)
        channels = (in_features, self.features)
        require_geometry(
            self.strides, self.padding, self.dilation, self.groups, channels, self.dims
        )
        strided = set(per_axis(self.strides, self.dims, "strides")) != {1}
        present = [
            branch
            for branch in self.branches
            if not (
                isinstance(branch, Identity)
                and branch.optional
                and (strided or in_features != self.features)
            )
        ]
        if self.norm not in ("branch", "sum", None):
            raise ValueError(f"norm is 'branch', 'sum' or None; found {self.norm!r}")
        if self.norm == "branch":
            present = [Norm(branch, self.epsilon) for branch in present]
        total: Branch = Sum(tuple(present))
        if self.norm == "sum":
            total = Norm(total, self.epsilon)
        use_bias = self.norm is None if self.use_bias is None else self.use_bias
        total = total.resolve(self.dims, use_bias=use_bias)
        require_kernel(total)
        require_outputs(total, in_features, self.features)
        return total

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply to data (batch..., spatial..., channels)."""
        branch = self.branch(x.shape[-1])
        self.require_data(branch, x)
        self._require_names(branch)
        if self.dtype is not None:
            (x,) = promote_dtype(x, dtype=self.dtype)
        settings, geometry = self.settings(train), self.geometry(branch)
        if self.deployed:
            return self.fused(branch).apply(LinenScope(self, settings), x, geometry)
        return BranchNode(branch, settings, name=equation(branch))(x, geometry)

    def fused(self, branch: Branch) -> Branch:
        """The single convolution that its branch is when deployed."""
        axes = branch.axes(self.dims)
        fused = KxK(
            tuple(axis.taps for axis in axes),
            dilation=tuple(axis.dilation for axis in axes),
            tap=tuple(axis.low // axis.dilation for axis in axes),
            bias=branch.has_bias,
        )
        return fused.resolve(self.dims, use_bias=False)

    def settings(self, train: bool) -> Settings:
        """What its arrays and norms have in common."""
        return Settings(
            train,
            self.momentum,
            self.axis_name,
            self.dtype,
            self.param_dtype,
            self.precision,
            self.kernel_init,
            self.bias_init,
            self.scale_init,
            self.norm_scale_init,
        )

    def require_data(self, branch: Branch, x: jax.Array) -> None:
        """Refuse data that are no images, or so small that no output is left.

        Raises:
            ValueError: of either.
        """
        size = [axis.last - axis.first + 1 for axis in branch.axes(self.dims)]
        require_outputs_on(x, size, self.strides, self.padding, self.dilation)

    def _require_names(self, branch: Branch) -> None:
        """Refuse a name too long for files, and variables of another form or block."""
        name, where = equation(branch), "/".join(self.path) or type(self).__name__
        if self.is_initializing():
            require_short((*self.path, name), branch)
            return
        held = self.variables.get("params", {})
        if self.deployed and branch.has_bias and "kernel" in held and "bias" not in held:
            raise ValueError(
                f"{where}: a deployed block got a kernel without a bias, as plain networks have it "
                "before their norms; repjax.fuse(model.apply, variables, images).params has them "
                "folded, and is the deploy twin's collection 'params'"
            )
        if ("kernel" if self.deployed else name) in held:
            return
        blocks = [key for key in held if key.startswith(PREFIX)]
        if self.deployed and blocks:
            raise ValueError(
                f"{where}: a deployed block got multi-branch variables; give it "
                "repjax.fuse_params(variables)"
            )
        if not self.deployed and "kernel" in held:
            raise ValueError(
                f"{where}: a multi-branch block got variables of the deploy form; "
                "use its deploy twin, .deploy()"
            )
        if blocks:
            raise ValueError(
                f"{where}: this block is {name}, its variables are those of {shown(blocks[0])}; "
                "names of older versions: repjax.rename_params(variables)"
            )

    def geometry(self, branch: Branch) -> Geometry:
        """Where its branch sits."""
        axes = branch.axes(self.dims)
        dilation = per_axis(self.dilation, self.dims, "dilation")
        reach = [(axis.low * d, axis.high * d) for axis, d in zip(axes, dilation, strict=True)]
        padding = reach if self.padding is None else padding_pairs(self.padding, self.dims)
        return Geometry(
            strides=per_axis(self.strides, self.dims, "strides"),
            padding=tuple(
                (low - before, high - after)
                for (low, high), (before, after) in zip(padding, reach, strict=True)
            ),
            dilation=dilation,
            groups=self.groups,
            features=self.features,
            border=((0, 0),) * self.dims,
        )
