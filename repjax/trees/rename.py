"""Trees with names that older versions wrote: the same arrays, by the names of today."""

from __future__ import annotations

from typing import Any

from repjax.branches.grammar import equation, parse
from repjax.branches.reader import PREFIX
from repjax.trees.containers import children, plain, require_tree, with_children

SHIFTED = "shift_then_conv"


def rename_params(variables: Any) -> dict[str, Any]:
    """Give the blocks of a tree the names that modules of this version write.

    `fuse_params` reads every name that any version wrote; ``model.apply`` looks for those of
    its own version. Arrays stay the same objects; names of today stay as they are.

    Args:
        variables: a tree as `fuse_params` takes it.

    Returns:
        A tree of new dicts.

    Raises:
        TypeError: `variables` is no nested dict.

    Example:
        >>> from repjax.branches.short import written_out
        >>> list(rename_params({written_out("y=norm(orepa3x3)"): {}}))
        ['y=norm(orepa3x3)']
    """
    require_tree(variables, "variables")
    renamed: dict[str, Any] = _renamed(regrouped(plain(variables)))
    return renamed


def regrouped(node: Any) -> Any:
    """A tree with those nodes in today's form whose arrays older versions grouped otherwise.

    Before there was a branch for it, UniRepLKNet's pointwise convolution with a bias in front
    was a node ``shift_then_conv`` of the bias and a block.
    """
    below = children(node)
    if below is None:
        return node
    items = {key: regrouped(value) for key, value in below.items()}
    old = items.pop(SHIFTED, None)
    blocks = old.get("conv") if isinstance(old, dict) else None
    if not isinstance(blocks, dict):
        return node if old is not None else with_children(node, items)
    for name, block in blocks.items():
        rest = {key: value for key, value in block.items() if key != "kernel"}
        kernel = {"conv1x1": {"kernel": block["kernel"]}} if "kernel" in block else {}
        shift = {"identity": {"bias": old["bias"]}} if "bias" in old else {}
        items[name.replace("conv1x1", "conv1x1(shift(identity))")] = {**shift, **kernel, **rest}
    return with_children(node, items)


def _renamed(node: Any) -> Any:
    below = children(node)
    if below is None:
        return node
    return with_children(node, {_name(key): _renamed(value) for key, value in below.items()})


def _name(key: Any) -> Any:
    if not isinstance(key, str) or not key.startswith(PREFIX):
        return key
    try:
        return equation(parse(key))
    except ValueError:
        return key
