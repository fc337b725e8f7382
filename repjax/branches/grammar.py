"""The grammar of names: a block's node is named by what the block computes.

The multi-branch form of a block keeps its arrays in one node whose name is an equation, so
that the structure survives everything a tree goes through (jit, vmap, optax, Orbax,
safetensors) and module and fold cannot disagree::

    y=norm(conv3x3)+norm(conv1x1)+norm(identity)          RepVGG
    y=conv3x3[bias]+conv1x1[bias]+identity                 a plain residual block
    y=4*norm(conv3x3)+norm(conv1x1)+norm(identity)         MobileOne
    y=norm(norm(conv3x3)+conv1x1+identity)                 batch norm after the sum
    y=norm(conv3x3)+norm(conv3x3(norm(conv1x1)))           pointwise, then 3x3
    y=conv3x3[bias]+scale[bias](sobelx3x3(conv1x1[bias]))  an edge mask, scaled
    y=norm(conv1x1(shift(identity)))                       a bias before a pointwise one

In full, ``{}`` meaning any number of times and ``[]`` in quotes being literal::

    equation  = "y=" sum
    sum       = ["-"] term { ("+" | "-") term }
    term      = [count "*"] branch                          count equal neighbors
    branch    = "identity"
              | kernel size attributes [ "(" sum ")" ]      of the input, or of the sum
              | "norm" attributes "(" sum ")"
              | "scale" attributes "(" sum ")"
              | "shift" "(" sum ")"
              | "(" sum ")" [ "(" sum ")" ]                 the first sum of the second
              | "orepa" size attributes [ "(" sum ")" ]     OREPA's set, see `short`
    kernel    = "conv" | "depthwise" | "average"
              | "sobelx" | "sobely" | "laplacian"           never trained: see `fixed`
              | "cosine" | "mean" | "eye"
    size      = number { "x" number }                       taps per axis: 3, 3x3, 1x3x3
    attributes= [ "[" name or name=value { "," ... } "]" ]

Attributes stand only where they are not the default: ``bias``, ``dilation=2``, ``tap=1``
(the tap that meets the identity, where it is not ``(size-1)//2``) of a convolution and of a
depthwise one, which has ``multiplier=8`` too, ``tap`` of a pool, ``bias`` of a scale,
``epsilon=1e-3`` (default 1e-5), ``scale=no``, ``bias=no`` of a norm, ``pointwise=no`` of
OREPA's set.

Below the equation each branch of a sum has a node named by its kind and size (``conv3x3``,
``conv3x3_dilation2``, ``identity``, ``conv1x1_conv3x3`` for a chain), numbered where names
are equal (``conv3x3_0``); it holds ``kernel``, ``bias``, ``scale``, ``mask`` (of a kernel
never trained, in the collection `fixed`) and a node ``norm``.

Names are a file format: a name that one version wrote is read by every later one. Before
there were short words (`repjax.branches.short`) sets were written out; `parse` reads both.
The whole path of an array, joined by dots, has at most 240 characters, so that stores with a
file per array work; a block whose paths would be longer is refused when it is created.
"""

from __future__ import annotations

from repjax.branches.branch import Branch
from repjax.branches.reader import PREFIX, read, shown
from repjax.branches.short import written_out


def equation(branch: Branch) -> str:
    """Name of the node of a resolved branch.

    Example:
        >>> from repjax.branches import Identity, KxK, Sum
        >>> equation(Sum((KxK(3), Identity())).resolve(2, use_bias=True))
        'y=conv3x3[bias]+identity'
    """
    return PREFIX + branch.formula()


def require_kernel(branch: Branch) -> None:
    """Refuse a block without a trained kernel: its arrays would not imply channels and groups.

    Raises:
        ValueError: no branch has a kernel.

    Example:
        >>> from repjax.branches import Identity
        >>> require_kernel(Identity())
        Traceback (most recent call last):
        ValueError: a block needs a branch with a kernel; found identity
    """
    if not any(path[-1] == "kernel" for path in branch.leaves()):
        raise ValueError(f"a block needs a branch with a kernel; found {branch.formula()}")


def parse(name: str) -> Branch:
    """The branch that a node name stands for, resolved.

    Args:
        name: an equation as written by `equation`.

    Raises:
        ValueError: `name` is not an equation of this grammar, with the place and the reason.

    Example:
        >>> parse("y=norm(conv3x3)").formula()
        'norm(conv3x3)'
    """
    if not name.startswith(PREFIX):
        raise ValueError(f"{shown(name)} does not begin with {PREFIX!r}")
    branch = read(name)
    dims = {inner.dims for inner in branch.walk() if inner.dims is not None}
    if len(dims) > 1:
        raise ValueError(
            f"{shown(name)}: expected one number of spatial axes, found {sorted(dims)}"
        )
    try:
        branch = branch.resolve(dims.pop() if dims else 0, use_bias=False)
        require_kernel(branch)
    except ValueError as error:
        raise ValueError(f"{shown(name)}: {error}") from error
    if name not in (equation(branch), written_out(equation(branch))):
        raise ValueError(f"{shown(name)} is not in its normal form {equation(branch)!r}")
    return branch
