"""What each JAX primitive is: one table, read by `fuse`, its report and `verify`.

A primitive without a row is `OTHER`: nothing is assumed of it.
"""

from __future__ import annotations

import enum
from typing import NamedTuple


class Kind(enum.Enum):
    """What an operation does with the numbers it is given."""

    KERNEL = "multiplies data with a kernel"
    WINDOW = "sums over windows or axes"
    SUM = "adds elements"
    SCALE = "multiplies or divides elements"
    POINTWISE = "computes every element by itself"
    MOVE = "copies elements to other places"
    FREE = "gives the same elements another shape or type"
    CHOICE = "picks elements by their values"
    CALLBACK = "runs Python code on the host"
    OTHER = "anything else"


ADDS_UP = frozenset({Kind.KERNEL, Kind.WINDOW})
"""The kinds that add numbers up; convolutions, products, pools and sums."""


class Primitive(NamedTuple):
    """One row of the table.

    Args:
        kind: what the operation does.
        short: its name in reports; empty where that is its own name.
        exact: whether it is exact in floating point.
        analytic: whether it is smooth wherever it is defined, so that it can be evaluated at
            random points to find out whether an expression is zero.
    """

    kind: Kind = Kind.OTHER
    short: str = ""
    exact: bool = False
    analytic: bool = False


PRIMITIVES: dict[str, Primitive] = {
    "conv_general_dilated": Primitive(Kind.KERNEL, "conv"),
    "dot_general": Primitive(Kind.KERNEL, "dot"),
    "reduce_window_sum": Primitive(Kind.WINDOW, "pool"),
    "reduce_window": Primitive(Kind.WINDOW),
    "reduce_sum": Primitive(Kind.WINDOW, "sum"),
    "cumsum": Primitive(Kind.WINDOW),
    "add": Primitive(Kind.SUM, analytic=True),
    "add_any": Primitive(Kind.SUM, "add", analytic=True),
    "sub": Primitive(Kind.SUM, analytic=True),
    "mul": Primitive(Kind.SCALE, analytic=True),
    "div": Primitive(Kind.SCALE, analytic=True),
    "neg": Primitive(Kind.SCALE, exact=True, analytic=True),
    "sqrt": Primitive(Kind.POINTWISE, analytic=True),
    "rsqrt": Primitive(Kind.POINTWISE, analytic=True),
    "exp": Primitive(Kind.POINTWISE, analytic=True),
    "log": Primitive(Kind.POINTWISE, analytic=True),
    "square": Primitive(Kind.POINTWISE, analytic=True),
    "integer_pow": Primitive(Kind.POINTWISE, analytic=True),
    "abs": Primitive(Kind.POINTWISE, exact=True),
    "sign": Primitive(Kind.POINTWISE, exact=True),
    "max": Primitive(Kind.POINTWISE, exact=True),
    "min": Primitive(Kind.POINTWISE, exact=True),
    "clamp": Primitive(Kind.POINTWISE, exact=True),
    "select_n": Primitive(Kind.POINTWISE, "select", exact=True),
    "erf": Primitive(Kind.POINTWISE),
    "erfc": Primitive(Kind.POINTWISE),
    "tanh": Primitive(Kind.POINTWISE),
    "logistic": Primitive(Kind.POINTWISE),
    "pow": Primitive(Kind.POINTWISE),
    "sin": Primitive(Kind.POINTWISE),
    "cos": Primitive(Kind.POINTWISE),
    "pad": Primitive(Kind.MOVE, exact=True),
    "slice": Primitive(Kind.MOVE, exact=True),
    "split": Primitive(Kind.MOVE, exact=True),
    "concatenate": Primitive(Kind.MOVE, exact=True),
    "transpose": Primitive(Kind.MOVE, exact=True, analytic=True),
    "rev": Primitive(Kind.MOVE, "flip", exact=True),
    "gather": Primitive(Kind.MOVE, exact=True),
    "scatter": Primitive(Kind.MOVE, exact=True),
    "dynamic_slice": Primitive(Kind.MOVE, exact=True),
    "dynamic_update_slice": Primitive(Kind.MOVE, exact=True),
    "reshape": Primitive(Kind.FREE, exact=True, analytic=True),
    "squeeze": Primitive(Kind.FREE, exact=True, analytic=True),
    "expand_dims": Primitive(Kind.FREE, exact=True),
    "broadcast_in_dim": Primitive(Kind.FREE, exact=True, analytic=True),
    "convert_element_type": Primitive(Kind.FREE, exact=True, analytic=True),
    "reduce_precision": Primitive(Kind.OTHER, exact=True),
    "copy": Primitive(Kind.FREE, exact=True),
    "copy_p": Primitive(Kind.FREE, exact=True),
    "stop_gradient": Primitive(Kind.OTHER, exact=True),
    "optimization_barrier": Primitive(Kind.OTHER, exact=True),
    "reduce_max": Primitive(Kind.CHOICE, exact=True),
    "reduce_min": Primitive(Kind.CHOICE, exact=True),
    "reduce_window_max": Primitive(Kind.CHOICE, "max pool", exact=True),
    "select_and_gather_add": Primitive(Kind.CHOICE, exact=True),
    "reduce_window_min": Primitive(Kind.CHOICE, "min pool", exact=True),
    "top_k": Primitive(Kind.CHOICE, exact=True),
    "argmax": Primitive(Kind.CHOICE, exact=True),
    "argmin": Primitive(Kind.CHOICE, exact=True),
    "sort": Primitive(Kind.CHOICE, exact=True),
    "iota": Primitive(Kind.OTHER, exact=True),
    "pure_callback": Primitive(Kind.CALLBACK, "callback"),
    "io_callback": Primitive(Kind.CALLBACK, "callback"),
    "debug_callback": Primitive(Kind.CALLBACK, "callback"),
    "ffi_call": Primitive(Kind.CALLBACK, "call"),
}

HEAVY = frozenset({"conv_general_dilated", "dot_general", "reduce_window_sum", "reduce_window"})
"""The operations worth opening a call with a derivative of its own for."""


def look_up(name: str) -> Primitive:
    """The row of a primitive, by its name in a program.

    Example:
        >>> look_up("dot_general").short
        'dot'
        >>> look_up("cholesky").kind is Kind.OTHER
        True
    """
    row = PRIMITIVES.get(name, Primitive())
    return row if row.short else row._replace(short=name)


def names_of(*kinds: Kind) -> frozenset[str]:
    """The primitives of some kinds, by name."""
    return frozenset(name for name, row in PRIMITIVES.items() if row.kind in kinds)


EXACT = frozenset(name for name, row in PRIMITIVES.items() if row.exact)
"""The operations that do not round."""
