"""Names of RepVGG weights: the original repository, timm, YOLOv6 and YOLOv7."""

from repjax.blocks.repvgg import RepVGGBlock
from repjax.models.repvgg import RepVGG
from repjax.torch.names import Names, register_names

ORIGINAL_BLOCK = {
    r"conv/y=[^/]*/conv3x3/norm": "rbr_dense.bn",
    r"conv/y=[^/]*/conv3x3": "rbr_dense.conv",
    r"conv/y=[^/]*/conv1x1/norm": "rbr_1x1.bn",
    r"conv/y=[^/]*/conv1x1": "rbr_1x1.conv",
    r"conv/y=[^/]*/identity/norm": "rbr_identity",
    r"conv": "rbr_reparam",
    r"squeeze_excite/reduce": "se.down",
    r"squeeze_excite/expand": "se.up",
}
TIMM_BLOCK = {
    r"conv/y=[^/]*/conv3x3/norm": "conv_kxk.bn",
    r"conv/y=[^/]*/conv3x3": "conv_kxk.conv",
    r"conv/y=[^/]*/conv1x1/norm": "conv_1x1.bn",
    r"conv/y=[^/]*/conv1x1": "conv_1x1.conv",
    r"conv/y=[^/]*/identity/norm": "identity",
    r"conv": "reparam_conv",
    r"squeeze_excite/reduce": "attn.fc1",
    r"squeeze_excite/expand": "attn.fc2",
}
YOLOV7_BLOCK = {
    r"conv/y=[^/]*/conv3x3/norm": "rbr_dense.1",
    r"conv/y=[^/]*/conv3x3": "rbr_dense.0",
    r"conv/y=[^/]*/conv1x1/norm": "rbr_1x1.1",
    r"conv/y=[^/]*/conv1x1": "rbr_1x1.0",
    r"conv/y=[^/]*/identity/norm": "rbr_identity",
    r"conv": "rbr_reparam",
}

register_names(
    RepVGGBlock,
    original=Names(ORIGINAL_BLOCK),
    timm=Names(TIMM_BLOCK),
    yolov7=Names(YOLOV7_BLOCK),
)
register_names(
    RepVGG,
    original=Names(
        {
            r"stem": "stage0",
            r"stage(\d)_block(\d+)": r"stage\1.\2",
            r"head": "linear",
            **ORIGINAL_BLOCK,
        }
    ),
    timm=Names(
        {
            r"stem": "stem",
            r"stage(\d)_block(\d+)": lambda match: f"stages.{int(match[1]) - 1}.{match[2]}",
            r"head": "head.fc",
            **TIMM_BLOCK,
        }
    ),
)
