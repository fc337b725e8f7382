"""Names of plain residual convolutions: `conv3`, `conv1`, and the fused one without a name."""

from repjax.blocks.residual import ResidualConv
from repjax.torch.names import Names, register_names

register_names(
    ResidualConv,
    original=Names({r"y=[^/]*/conv1x1": "conv1", r"y=[^/]*/conv\d+x\d+": "conv3"}),
    by_size=Names({r"y=[^/]*/conv(\d+)x\d+": r"conv\1"}),
)
