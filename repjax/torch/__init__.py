"""Published PyTorch weights become variables; PyTorch is not needed, no pickle is opened.

The one line that turns a `.pth` into a file this package reads, in PyTorch::

    safetensors.torch.save_file(torch.load("x.pth", weights_only=True), "x.safetensors")
"""

from repjax.torch.files import read, write
from repjax.torch.load import StateDictError, load
from repjax.torch.names import Names, register_names

__all__ = ["Names", "StateDictError", "load", "read", "register_names", "write"]
