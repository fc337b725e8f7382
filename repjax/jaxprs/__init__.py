"""JAX programs: what depends on how a version of JAX represents traced functions.

Everything that differs between JAX versions is here: where the variables and constants of
a jaxpr are, what calls are named, how a scan says which operands it carries. The rest of
the library sees equations (``primitive``, ``params``, ``invars``, ``outvars``) and values.
What each primitive is stands in `repjax.primitives`.
"""

from repjax.jaxprs.reading import (
    Atom,
    Body,
    Equation,
    Jaxpr,
    body_of,
    call_body,
    equations,
    holds,
    is_custom_derivative,
    is_literal,
    module_path,
    name_of,
    operation_name,
    programs_in,
    source_line,
)
from repjax.jaxprs.running import (
    Scan,
    Step,
    bind,
    bind_loop,
    interpret,
    keep_custom_derivatives,
    run_step,
)

__all__ = [
    "Atom",
    "Body",
    "Equation",
    "Jaxpr",
    "Scan",
    "Step",
    "bind",
    "bind_loop",
    "body_of",
    "call_body",
    "equations",
    "holds",
    "interpret",
    "is_custom_derivative",
    "is_literal",
    "keep_custom_derivatives",
    "module_path",
    "name_of",
    "operation_name",
    "programs_in",
    "run_step",
    "source_line",
]
