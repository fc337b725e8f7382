"""`add_branches`: the convolutions of any network become nodes of several branches."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.nn.initializers import lecun_normal, ones
from jax.sharding import NamedSharding

from repjax.branches import Branch, Geometry, Request, equation
from repjax.branches.asking import requests_of
from repjax.sharding import keep, sharding_of
from repjax.trees import find
from repjax.trees.chosen import Chosen, Groups, Predicate, choose
from repjax.trees.containers import TreePath
from repjax.trees.fuse import require_predicate
from repjax.trees.states import as_given
from repjax.trees.unfuse import unfuse_params

Branches = tuple[Branch, ...] | Callable[[str, Any], tuple[Branch, ...]]


def add_branches(
    variables: Mapping[str, Any],
    branches: Branches,
    key: jax.Array,
    *,
    only: Predicate | None = None,
    groups: Groups | None = None,
) -> dict[str, Any]:
    """Put branches beside the convolutions of any network, which computes what it computed.

    Each chosen `kernel` moves into a node such as ``y=conv3x3+conv1x1+identity``, together
    with the module's `bias`; the branches are initialized, and the old kernel takes what
    they add off again. `fuse_params` is the way back, to the structure and, to rounding, to
    the values of `variables`. So any network is trained with branches, at the price of one
    convolution each: ``loss(model.apply(fuse_params(wide), x))``. Pure; works under `jit`;
    types are kept, and new arrays are sharded like the kernel beside them.

    Args:
        variables: a tree as `fuse_params` takes it, whose modules hold `kernel`, of shape
            (spatial..., in/groups, out), and perhaps `bias`.
        branches: what is added to each kernel, or a function of the module's path
            ("stage1/conv0") and its kernel that gives it, () to leave that one alone. Linear
            branches of `repjax.branches` without norm and bias whose taps fit the kernel;
            ``Identity(optional=True)`` is left out where channels differ;
            ``repjax.branches.orepa(3)`` keeps fixed masks in a collection of their own.
        key: of the initial values; those of a module depend on its path alone.
        only: which modules, by path. By default every kernel of rank 4 and 5 is chosen; those
            of rank 3 only where `only` names them (attention has such kernels that are no
            convolutions); others never.
        groups: channel groups, a number or a function of path and kernel. By default one
            input channel per group with several outputs is a depthwise convolution,
            everything else has one group. A wrong guess changes what an identity means,
            never the function.

    Returns:
        The tree with branches (of an NNX state, a state), all its containers new; what is not
        chosen, nodes with branches among it, passes through.

    Raises:
        TypeError: `variables` is no nested dict, `only` no function, `branches` neither.
        ValueError: nothing is chosen, or branches do not fit: a norm or a bias inside, more
            taps than the kernel, other channels, fixed masks in a tree without collections;
            all are listed with their paths.
        MalformedTreeError: nodes with branches that are there already are damaged.

    Source: of the idea, Ding et al., Diverse Branch Block, CVPR 2021, and Hu et al., Online
    Convolutional Re-parameterization, CVPR 2022; on trees, and function-preserving, here.

    Example:
        >>> import flax.linen as nn, repjax
        >>> from repjax.branches import Identity, Pointwise
        >>> variables = nn.Conv(4, (3, 3)).init(jax.random.key(0), jnp.ones((1, 8, 8, 4)))
        >>> wide = add_branches(variables, (Pointwise(), Identity()), jax.random.key(1))
        >>> list(wide["params"])
        ['y=conv3x3[bias]+conv1x1+identity']
        >>> again = repjax.fuse_params(wide)
        >>> jax.tree.map(lambda a, b: bool(jnp.allclose(a, b, atol=1e-6)), again, variables)
        {'params': {'bias': True, 'kernel': True}}
    """
    require_predicate(only)
    parts = find.collections(variables, "variables")
    home = find.params_of(parts)
    chosen = choose(parts[home], branches, only, groups, fixed=home is not None)
    changes: dict[TreePath, find.Change] = {}
    for one in chosen:
        trained, fixed = _initial(one, key)
        changes[one.path] = _moved(one, trained)
        if fixed:
            _insert(parts.setdefault("fixed", {}), (*one.path, equation(one.branch)), fixed)
    parts[home] = find.rebuild(parts[home], changes)
    wide = unfuse_params(variables, like=find.variables_of(parts))
    result: dict[str, Any] = as_given(wide, variables)
    return result


def _initial(one: Chosen, key: jax.Array) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays of the branches of one module, those that are trained and those that are not."""
    geometry = Geometry(
        strides=(1,) * one.dims,
        padding=((0, 0),) * one.dims,
        dilation=(1,) * one.dims,
        groups=one.groups,
        features=one.features,
        border=((0, 0),) * one.dims,
    )
    sizes = [axis.taps for axis in one.branch.axes(one.dims)]
    data = jax.ShapeDtypeStruct((1, *sizes, one.inputs), jnp.float32)  # type: ignore[no-untyped-call]
    asked = dict(_flat(requests_of(one.branch, data, geometry)))
    for name in ("kernel", "bias"):
        asked.pop((*one.own, name), None)
    own = jax.random.fold_in(key, zlib.crc32(one.where.encode()))
    dtype = jax.dtypes.canonicalize_dtype(one.kernel.dtype)
    shardings = [sharding_of(one.kernel, request.shape) for request in asked.values()]

    def draw(key: jax.Array) -> list[jax.Array]:
        return _drawn(list(asked.items()), key, dtype)

    if isinstance(own, jax.core.Tracer) or isinstance(one.kernel, jax.core.Tracer):
        values = keep(draw, shardings, own)
    else:  # a key on one device, arrays on all
        values = [
            value
            if sharding is None
            else jax.device_put(value, NamedSharding(one.kernel.sharding.mesh, sharding.spec))
            for value, sharding in zip(draw(own), shardings, strict=True)
        ]
    trees: tuple[dict[str, Any], dict[str, Any]] = {}, {}
    for (path, request), value in zip(asked.items(), values, strict=True):
        _insert(trees[request.fixed], path, value)
    return trees


def _drawn(asked: list[tuple[TreePath, Request]], key: jax.Array, dtype: Any) -> list[jax.Array]:
    keys = jax.random.split(key, max(len(asked), 1))
    defaults = {"kernel": lecun_normal(), "scale": ones}
    return [
        (request.init or defaults[path[-1]])(one, request.shape, dtype)
        for one, (path, request) in zip(keys, asked, strict=False)
    ]


def _moved(one: Chosen, trained: dict[str, Any]) -> find.Change:
    """The module with a node of branches in place of its kernel and bias."""

    def change(module: dict[Any, Any]) -> dict[Any, Any]:
        node = trained
        for name in ("kernel", "bias"):
            if name in module:
                _insert(node, (*one.own, name), module[name])
        rest = {name: leaf for name, leaf in module.items() if name not in ("kernel", "bias")}
        return rest | {equation(one.branch): node}

    return change


def _flat(requests: Mapping[str, Any], path: TreePath = ()) -> Iterator[tuple[TreePath, Request]]:
    for name, request in requests.items():
        if isinstance(request, Request):
            yield (*path, name), request
        else:
            yield from _flat(request, (*path, name))


def _insert(tree: Any, path: TreePath, value: Any) -> None:
    """Put a value into a tree of dicts at a path, with the dicts that lead there."""
    *lead, last = path
    for name in lead:
        tree = tree.setdefault(name, {})
    tree[last] = value
