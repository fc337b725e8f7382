"""The automatic door: find and merge what is fusable in any JAX function.

A book in chapters; its first page is README.md in this folder. A program is read
(`program`), its linear operations become affine forms (`linear`), a plan says which of them
are computed together (`plan`), and `fused` runs it; `report` and `reasons` say what was done.
"""

from repjax.tracing.fused import Fused, fuse
from repjax.tracing.reasons import Kept
from repjax.tracing.report import Region, Report
from repjax.tracing.surprises import InternalWarning

__all__ = ["Fused", "InternalWarning", "Kept", "Region", "Report", "fuse"]
