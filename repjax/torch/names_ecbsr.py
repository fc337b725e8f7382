"""Names of edge-oriented blocks and ECBSR networks: the original repository."""

from repjax.blocks.ecb import ECB
from repjax.models.ecbsr import ECBSR
from repjax.torch.names import Names, register_names

BLOCK = {
    r"conv/y=[^/]*/conv3x3": "conv3x3",
    r"conv/y=[^/]*/conv1x1_conv3x3/conv1x1/kernel": "conv1x1_3x3.k0",
    r"conv/y=[^/]*/conv1x1_conv3x3/conv1x1/bias": "conv1x1_3x3.b0",
    r"conv/y=[^/]*/conv1x1_conv3x3/conv3x3/kernel": "conv1x1_3x3.k1",
    r"conv/y=[^/]*/conv1x1_conv3x3/conv3x3/bias": "conv1x1_3x3.b1",
    **{
        rf"conv/y=[^/]*/conv1x1_{mask}3x3/{ours}": f"conv1x1_{short}.{theirs}"
        for mask, short in (("sobelx", "sbx"), ("sobely", "sby"), ("laplacian", "lpl"))
        for ours, theirs in (
            ("conv1x1/kernel", "k0"),
            ("conv1x1/bias", "b0"),
            ("scale", "scale"),
            ("bias", "bias"),
            (f"{mask}3x3/mask", "mask"),
        )
    },
    r"conv": "conv3x3",
    r"prelu/negative_slope": "act.weight",
}

register_names(ECB, original=Names(BLOCK))
register_names(ECBSR, original=Names({r"block(\d+)": r"backbone.\1", **BLOCK}))
