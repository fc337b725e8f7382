"""Published PyTorch weights become variables; PyTorch is not needed, no pickle is opened.

``python -m repjax.torch MODEL FROM TO`` converts a file. Given a `.pth`, it prints the line
that turns it into a file this package reads, to be run where PyTorch is installed.
"""

from repjax._files import FileError
from repjax.torch.backwards import to_state_dict
from repjax.torch.files import read, write
from repjax.torch.load import Loaded, StateDictError, convert, load
from repjax.torch.names import Names, register_names

__all__ = [
    "FileError",
    "Loaded",
    "Names",
    "StateDictError",
    "convert",
    "load",
    "read",
    "register_names",
    "to_state_dict",
    "write",
]
