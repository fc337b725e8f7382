"""The last guard: an error inside the library leaves the program as written, and is said aloud."""

from __future__ import annotations

import warnings


class InternalWarning(UserWarning):
    """Something in repjax went wrong; what it concerned was kept as written, and is right.

    Please report it. Under ``warnings.simplefilter("error", repjax.InternalWarning)``, as in
    the tests of this library, it is an error.

    Example:
        >>> issubclass(InternalWarning, UserWarning)
        True
    """


def kept_as_written(what: str, error: Exception) -> str:
    """Warn of an internal error, and give the reason for the report."""
    reason = f"an internal error ({type(error).__name__}: {error})"
    message = f"repjax.fuse kept {what} as written because of {reason}; please report this"
    warnings.warn(message, InternalWarning, stacklevel=3)
    return reason
