"""Names of QARepVGG weights: the original repository, and YOLOv6, which keeps a norm."""

from repjax.blocks.qarepvgg import QARepVGGBlock
from repjax.torch.names import Names, register_names
from repjax.torch.names_repvgg import ORIGINAL_BLOCK

V1 = {r"conv/y=[^/]*/norm(?=/\w+\Z)": "bn", r"norm": "bn", **ORIGINAL_BLOCK}
V2 = {**V1, r"conv/y=[^/]*/conv1x1": "rbr_1x1"}

register_names(
    QARepVGGBlock,
    v2=Names(V2),
    v1=Names(V1),
    yolov6=Names(V2, kept_norms={r"rbr_reparam": "bn"}, epsilon=1e-3),
)
