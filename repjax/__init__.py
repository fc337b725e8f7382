"""repjax: structural re-parameterization for JAX and Flax, exact or refused."""

import importlib
from typing import TYPE_CHECKING, Any

from repjax import algebra, blocks, branches
from repjax._verification import Verification
from repjax._verify import verify
from repjax.algebra import NotFusableError
from repjax.compiling.compiled import Compiled
from repjax.compiling.measured import compile
from repjax.compiling.options import compiler_options
from repjax.compiling.shifting import shift_depthwise
from repjax.counting import count_operations
from repjax.tracing import Fused, InternalWarning, Report, fuse
from repjax.trees import (
    MalformedTreeError,
    add_branches,
    fuse_params,
    register_block,
    rename_params,
    unfuse_params,
)

if TYPE_CHECKING:
    from repjax import export, models, nnx, optim, torch
    from repjax.export.network_file import load

__version__ = "0.1.0"

__all__ = [
    "Compiled",
    "Fused",
    "InternalWarning",
    "MalformedTreeError",
    "NotFusableError",
    "Report",
    "Verification",
    "add_branches",
    "algebra",
    "blocks",
    "branches",
    "compile",
    "compiler_options",
    "count_operations",
    "export",
    "fuse",
    "fuse_params",
    "load",
    "models",
    "nnx",
    "optim",
    "register_block",
    "rename_params",
    "shift_depthwise",
    "torch",
    "unfuse_params",
    "verify",
]


def __getattr__(name: str) -> Any:
    """`export`, `load`, `models`, `nnx`, `optim` and `torch`, imported at their first use.

    Raises:
        AttributeError: any other name.
    """
    if name in ("export", "models", "nnx", "optim", "torch"):
        return importlib.import_module(f"repjax.{name}")
    if name == "load":
        return importlib.import_module("repjax.export").load
    raise AttributeError(f"module 'repjax' has no attribute {name!r}")
