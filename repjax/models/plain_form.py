"""Networks that exist in a plain form too: one convolution and one norm in place of each block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from repjax.blocks.block import ConvBlock
from repjax.blocks.plain import PlainBlock
from repjax.models.network import Network

Form = Literal["multi", "plain"]
FORMS: tuple[Form, ...] = ("multi", "plain")


class NetworkWithPlainForm(Network):
    """A network of blocks with branches, or of ordinary convolutions and batch norms.

    The plain form is what branches are compared with, and what `repjax.add_branches` and
    `repjax.optim` begin with. Its convolutions are of `flax.linen`, each followed by one
    norm on the batch's statistics. Both forms have the same deploy twin: `repjax.fuse_params`
    makes its variables of the multi-branch ones, and of plain ones
    ``{"params": repjax.fuse(model.apply, variables, images).params}``.

    Args:
        form: "multi" has the published blocks, "plain" one convolution for each.

    The other arguments are those of `Network`.
    """

    form: Form = "multi"

    def block_class(self, published: type[ConvBlock]) -> Callable[..., ConvBlock]:
        """The class of its blocks; the plain form is one of training.

        Raises:
            ValueError: `form` is neither "multi" nor "plain".
        """
        if self.form not in FORMS:
            raise ValueError(f"form is 'multi' or 'plain'; found {self.form!r}")
        return PlainBlock if self.form == "plain" and not self.deployed else published
