"""The automatic door: find and merge what is fusable in any JAX function.

A program is read as a graph of data and weights (`graph`, `expressions`); rules say which
operations are linear (`rules*`) on axes whose meaning is inferred (`axes`); linear values
become maps and forms (`vectors`, `maps`, `forms`), grouped where that is exact and not
dearer (`regions`, `cost`); a plan (`plan`, `naming`, `loops`) replays the rest (`replay`)
and is told in words (`report`, `reasons`).
"""

from repjax.tracing import rules_elementwise as _elementwise
from repjax.tracing import rules_moves as _moves
from repjax.tracing import rules_windows as _windows
from repjax.tracing.fused import Fused, fuse
from repjax.tracing.programs import count_operations
from repjax.tracing.reasons import Kept
from repjax.tracing.report import Region, Report

__all__ = ["Fused", "Kept", "Region", "Report", "count_operations", "fuse"]

del _elementwise, _moves, _windows  # imported for the rules they register
