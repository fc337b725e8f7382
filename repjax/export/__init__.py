"""Ways out: StableHLO, ONNX, safetensors, state dicts of timm, and compiled programs.

Each function checks what it made before it counts as written: it is read again and compared.
Files are written whole or not at all, and nothing is ever unpickled.
"""

from repjax.compiling.saving import load_compiled
from repjax.export.network_file import load, safetensors
from repjax.export.onnx_model import onnx
from repjax.export.program import stablehlo
from repjax.export.timm_state import timm

__all__ = ["load", "load_compiled", "onnx", "safetensors", "stablehlo", "timm"]
