"""A row of the tables of GhostNet's descendants: the sizes of one bottleneck."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Row:
    """One bottleneck at width 1.

    Args:
        kernel_size: of its depthwise convolution.
        hidden: channels between its two modules.
        features: output channels.
        squeeze_excite: channels of its squeeze-excite, as a fraction of `hidden`; 0 leaves it out.
        strides: of its depthwise convolution.
    """

    kernel_size: int
    hidden: int
    features: int
    squeeze_excite: float = 0.0
    strides: int = 1
