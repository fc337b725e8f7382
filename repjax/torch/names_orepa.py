"""Names of OREPA blocks: the original repository, whose arrays are first brought to ours."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from repjax.blocks.orepa import (
    OREPABlock,
    OREPALargeBlock,
    OREPAPointwiseBlock,
    OREPARepVGGBlock,
)
from repjax.branches.orepa_set import EXPANSION
from repjax.torch.names import Names, Replacement, register_names


def split_vector(state: dict[str, Any]) -> dict[str, Any]:
    """Every row of `vector` by itself: the scales of one branch."""
    result: dict[str, Any] = {}
    for name, array in state.items():
        if name.split(".")[-1] == "vector":
            result |= {f"{name}.{number}": row for number, row in enumerate(np.asarray(array))}
        else:
            result[name] = array
    return result


def linear_branches(state: dict[str, Any], words: str = "weight_orepa_") -> dict[str, Any]:
    """What the original code does to its arrays on the way to one kernel.

    One mean for all channels, cosines without an axis of inputs, and rows of the depthwise
    branch's 1x1 kernel that go from channel group to channel group.
    """
    state = split_vector(state)
    for name in [name for name in state if name.endswith(f"{words}origin")]:
        prefix = name.removesuffix("origin")
        features, per_group = np.shape(state[name])[:2]
        mean, prior = state.get(f"{prefix}avg_avg"), state.get(f"{prefix}prior")
        if mean is not None and np.ndim(mean) == 2:
            state[f"{prefix}avg_avg"] = np.repeat(np.asarray(mean)[None, None], features, axis=0)
        if prior is not None and np.ndim(prior) == 3:
            state[f"{prefix}prior"] = np.asarray(prior)[:, None]
        rows, depthwise = state.get(f"{prefix}gconv_pw"), state.get(f"{prefix}gconv_dw")
        if rows is not None and depthwise is not None:
            groups = max(np.shape(depthwise)[0] // EXPANSION // per_group, 1)
            state[f"{prefix}gconv_pw"] = grouped_rows(np.asarray(rows), groups)
    return state


def grouped_rows(rows: np.ndarray, groups: int) -> np.ndarray:
    """Output channels in the order of their groups, where row r belongs to group r % groups.

    Example:
        >>> grouped_rows(np.arange(6), 2)
        array([0, 2, 4, 1, 3, 5])
    """
    if len(rows) % groups:
        return rows
    return rows.reshape(-1, groups, *rows.shape[1:]).swapaxes(0, 1).reshape(rows.shape)


def repvgg(state: dict[str, Any]) -> dict[str, Any]:
    """As `linear_branches`; with an identity branch `vector` has one more row, which is unused."""
    state = linear_branches(state, "weight_rbr_")
    return {name: array for name, array in state.items() if not name.endswith("vector.5")}


def mirrored(state: dict[str, Any]) -> dict[str, Any]:
    """Chained kernels that are correlated there and convolved here: mirrored from the second on."""
    state = linear_branches(state)
    return {
        name: np.asarray(array)[..., ::-1, ::-1] if _chained(name, array) else array
        for name, array in state.items()
    }


def _chained(name: str, array: Any) -> bool:
    return re.match(r"weight[1-9]", name) is not None and np.ndim(array) == 4


Y = r"conv/y=[^/]*"
OWN = {rf"{Y}/norm": "bn"}
REPARAM = {r"conv": "orepa_reparam"}


def branch_rules(node: str, words: str, prefix: str = "", *, pointwise: bool) -> dict[str, str]:
    """Rules of the linear branches below a node, given the beginning of their names there."""
    size = r"\d+x\d+"
    rows = {
        rf"conv{size}": "0",
        rf"conv1x1_mean{size}": "1",
        rf"conv1x1_cosine{size}": "2",
        rf"sum_conv{size}": "3",
        **({r"conv1x1": "4"} if pointwise else {}),
        rf"depthwise{size}_conv1x1": "5" if pointwise else "4",
    }
    arrays = {
        rf"conv1x1_mean{size}/conv1x1/kernel": "avg_conv",
        rf"conv1x1_mean{size}/mean{size}/mask": "avg_avg",
        rf"conv1x1_cosine{size}/conv1x1/kernel": "pfir_conv",
        rf"conv1x1_cosine{size}/cosine{size}/mask": "prior",
        rf"sum_conv{size}/sum/conv1x1/kernel": "1x1_kxk_idconv1",
        rf"sum_conv{size}/conv{size}/kernel": "1x1_kxk_conv2",
        rf"depthwise{size}_conv1x1/depthwise{size}/kernel": "gconv_dw",
        rf"depthwise{size}_conv1x1/conv1x1/kernel": "gconv_pw",
        **({r"conv1x1/kernel": "1x1"} if pointwise else {}),
        rf"conv{size}/kernel": "origin",
    }
    scales = {**({r"conv1x1": rows.pop("conv1x1")} if pointwise else {}), **rows}
    return {
        **{f"{node}/{ours}": f"{prefix}{words}{theirs}" for ours, theirs in arrays.items()},
        **{f"{node}/{ours}/scale": f"{prefix}vector.{row}" for ours, row in scales.items()},
        rf"{node}/sum_conv{size}/sum/eye1x1/mask": f"{prefix}id_tensor",
    }


def large(model: OREPALargeBlock) -> Names:
    """The table of a chain, whose links lie deeper the earlier they are."""
    links = model.kernel_size // 2
    rules: dict[str, Replacement] = {**OWN, r"conv": "or_large_reparam"}
    word = "sum" if model.branched else "conv3x3"
    for link in range(links):
        chain = ["_".join([word] * length) for length in range(links - 1, max(link, 1), -1)]
        last = word if link > 1 else f"{word}_{link}"
        node = "/".join([Y, *chain, last])
        if model.branched:
            rules = {
                **branch_rules(node, "weight_orepa_", f"weight{link}.", pointwise=True),
                **rules,
            }
        else:
            rules = {f"{node}/kernel": f"weight{link}", **rules}
    return Names(rules, prepare=mirrored)


POINTWISE = {
    rf"{Y}/conv1x1/kernel": "weight_or1x1_origin",
    rf"{Y}/conv1x1/scale": "vector.0",
    rf"{Y}/conv1x1_conv1x1/conv1x1_0/kernel": "weight_or1x1_l2i_conv1",
    rf"{Y}/conv1x1_conv1x1/conv1x1_1/kernel": "weight_or1x1_l2i_conv2",
    rf"{Y}/conv1x1_conv1x1/scale": "vector.1",
    r"conv": "or1x1_reparam",
}
REPVGG = {
    **branch_rules(rf"{Y}/sum", "weight_rbr_", "rbr_dense.", pointwise=False),
    rf"{Y}/sum/norm": "rbr_dense.bn",
    rf"{Y}/conv1x1/norm": "rbr_1x1.bn",
    rf"{Y}/conv1x1": "rbr_1x1.conv",
    rf"{Y}/identity/norm": "rbr_identity",
    r"conv": "rbr_reparam",
    r"squeeze_excite/reduce": "se.down",
    r"squeeze_excite/expand": "se.up",
}
BLOCK = {**branch_rules(Y, "weight_orepa_", pointwise=True), **OWN, **REPARAM}

register_names(OREPABlock, original=Names(BLOCK, prepare=linear_branches))
register_names(OREPAPointwiseBlock, original=Names({**OWN, **POINTWISE}, prepare=split_vector))
register_names(OREPALargeBlock, original=large)
register_names(OREPARepVGGBlock, original=Names(REPVGG, prepare=repvgg))
