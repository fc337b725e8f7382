"""Which kernels of a plain tree get branches, and whether these fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from repjax.branches import Branch, Identity, KxK, Norm, Sum
from repjax.branches.convolution import is_whole
from repjax.trees import find
from repjax.trees.containers import TreePath, children, joined

Predicate = Callable[[str], bool]
Groups = int | Callable[[str, Any], int]


@dataclasses.dataclass(frozen=True)
class Chosen:
    """A module that gets branches: its path and kernel, and the branch that it becomes.

    Attributes:
        path: of the module.
        kernel: its kernel.
        branch: its kernel and what is added, resolved.
        own: where in the node its kernel goes.
        inputs: input channels.
        groups: channel groups.
    """

    path: TreePath
    kernel: Any
    branch: Branch
    own: TreePath
    inputs: int
    groups: int

    @property
    def where(self) -> str:
        """Its path in words."""
        return joined(self.path)

    @property
    def dims(self) -> int:
        """Number of spatial axes."""
        return int(self.kernel.ndim) - 2

    @property
    def features(self) -> int:
        """Output channels."""
        return int(self.kernel.shape[-1])


def choose(
    params: Any, branches: Any, only: Predicate | None, groups: Groups | None, *, fixed: bool
) -> list[Chosen]:
    """The modules that get branches, in order.

    Args:
        params: the parameters.
        branches: as of `add_branches`.
        only: as of `add_branches`.
        groups: as of `add_branches`.
        fixed: whether the tree has a place for arrays that are never trained.

    Raises:
        TypeError: `branches` or `groups` are something else.
        ValueError: nothing is chosen, or branches do not fit.
    """
    if not callable(branches):
        _require_branches(branches, "branches")
    problems: list[str] = []
    chosen: list[Chosen] = []
    found: list[str] = []
    for path, module in _modules(params):
        kernel, where = module["kernel"], joined(path)
        found.append(f"{where}/kernel {tuple(kernel.shape)}".lstrip("/"))
        ranks = (4, 5) if only is None else (3, 4, 5)
        if kernel.ndim not in ranks or (only is not None and not only(where)):
            continue
        added = branches(where, kernel) if callable(branches) else branches
        _require_branches(added, f"{where}: branches")
        number = _groups(groups, where, kernel)
        wrong = _module_problems(module) or _group_problems(kernel, number)
        one = None if wrong or not added else _chosen(path, module, added, number, wrong)
        if (
            one is not None
            and not fixed
            and any(leaf[-1] == "mask" for leaf in one.branch.leaves())
        ):
            wrong.append(
                f"{one.branch.formula()} has masks that are never trained, which need a "
                "collection of their own; pass {'params': ...}, not a bare tree"
            )
        problems += [f"{where or 'the tree itself'}: {words}" for words in wrong]
        chosen += [] if one is None else [one]
    if problems:
        raise ValueError("cannot add branches:\n" + "\n".join(f"  {p}" for p in problems))
    if not chosen:
        raise ValueError(_nothing(found, only, branches))
    return chosen


def _modules(params: Any) -> Iterator[tuple[TreePath, dict[Any, Any]]]:
    """Every dict with an array `kernel`, outside of nodes with branches."""
    for path, node in _containers(params, ()):
        if isinstance(node, dict) and hasattr(node.get("kernel"), "ndim"):
            yield path, node


def _containers(node: Any, path: TreePath) -> Iterator[tuple[TreePath, Any]]:
    below = children(node)
    if below is None:
        return
    yield path, node
    for key, value in below.items():
        if not find.is_block(key):
            yield from _containers(value, (*path, key))


def _chosen(
    path: TreePath,
    module: dict[Any, Any],
    added: tuple[Branch, ...],
    groups: int,
    problems: list[str],
) -> Chosen | None:
    kernel = module["kernel"]
    *size, per_group, features = kernel.shape
    inputs, dims = per_group * groups, len(size)
    own = KxK(tuple(size), bias="bias" in module).resolve(dims, use_bias=False)
    fitting: list[Branch] = []
    for branch in added:
        if isinstance(branch, Identity) and branch.optional and inputs != features:
            continue
        try:
            one = branch.resolve(dims, use_bias=False)
            outputs = one.outputs(inputs, features)
        except ValueError as error:
            problems.append(str(error))
            continue
        wrong = _branch_problem(one, own, groups)
        if wrong is None and outputs != features:
            wrong = f"makes {outputs} channels of {inputs}, expected {features}; leave it out here"
            optional = "; or use Identity(optional=True)" if isinstance(one, Identity) else ""
            wrong += optional
        if wrong is not None:
            problems.append(f"{one.formula()} {wrong}")
        fitting.append(one)
    if problems or not fitting:
        return None
    total = Sum((own, *fitting))
    return Chosen(path, kernel, total, (next(iter(total.named())),), inputs, groups)


def _branch_problem(branch: Branch, own: KxK, groups: int) -> str | None:
    """Why a branch cannot stand beside a kernel, None where it can."""
    if any(isinstance(part, Norm) for part in branch.walk()):
        return "has a norm, which would not compute what the network computed; leave it out"
    if branch.has_bias:
        return "has a bias; added branches have none (bias=False)"
    if branch.dims not in (None, own.dims):
        return f"has {branch.dims} spatial axes, the kernel {own.dims}"
    spans = zip(branch.axes(own.dims), own.axes(own.dims), strict=True)
    if any(axis.low > room.low or axis.high > room.high for axis, room in spans):
        size = "x".join(str(axis.taps) for axis in own.axes(own.dims))
        return f"has taps outside the kernel, which has {size}; use a smaller one"
    widths = [getattr(part, "features", None) or groups for part in branch.walk()]
    if any(width % groups for width in widths):
        return f"has {widths} channels inside, which {groups} groups do not divide"
    return None


def _module_problems(module: dict[Any, Any]) -> list[str]:
    kernel, bias = module["kernel"], module.get("bias")
    if isinstance(kernel, jax.ShapeDtypeStruct):
        return ["is abstract; use jax.eval_shape(repjax.add_branches, ...)"]
    if not jnp.issubdtype(kernel.dtype, jnp.floating):
        return [f"its kernel has dtype {kernel.dtype}, expected a floating point type"]
    if "bias" in module and getattr(bias, "shape", None) != kernel.shape[-1:]:
        shape = getattr(bias, "shape", type(bias).__name__)
        return [
            f"its bias has shape {shape}, expected {kernel.shape[-1:]}; a stack of modules "
            "(nn.scan?) goes through jax.vmap, or leave it out with only="
        ]
    return []


def _groups(groups: Groups | None, where: str, kernel: Any) -> int:
    if groups is None:
        per_group, features = kernel.shape[-2:]
        return int(features) if per_group == 1 and features > 1 else 1
    number = groups(where, kernel) if callable(groups) else groups
    if not is_whole(number):
        raise TypeError(f"{where}: groups is a whole number, found {number!r}")
    return int(number)


def _group_problems(kernel: Any, groups: int) -> list[str]:
    features = kernel.shape[-1]
    if groups < 1 or features % groups:
        return [f"groups={groups} do not divide its {features} output channels"]
    return []


def _require_branches(branches: Any, argument: str) -> None:
    if not isinstance(branches, tuple | list) or not all(isinstance(b, Branch) for b in branches):
        raise TypeError(
            f"{argument}: expected a tuple of descriptions (repjax.branches), such as "
            f"(Pointwise(), Identity(optional=True)), or a function that gives one; found "
            f"{branches!r}"
        )


def _nothing(found: list[str], only: Predicate | None, branches: Any) -> str:
    if not found:
        return (
            "no kernel to add branches to: no module of the tree holds an array `kernel` of shape "
            "(spatial..., in/groups, out), as Flax has them; bring other names and layouts to it"
        )
    kernels = ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")
    if only is not None:
        why = "only= names none of them, or none of rank 3 to 5"
    elif callable(branches):
        why = "none of rank 4 or 5 got a branch"
    else:
        why = "none of rank 4 or 5 that a branch fits; rank 3 must be named by only="
    return f"no kernel to add branches to: {why}; found {kernels}"
