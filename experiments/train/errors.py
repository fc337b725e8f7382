"""What a user can put right, told in one line."""


class RunError(Exception):
    """A wrong setting, a missing or damaged file, a full disk: the command line prints it."""


def one_line(error: BaseException, limit: int = 300) -> str:
    r"""An error's message without line breaks, shortened.

    Args:
        error: what was raised.
        limit: characters.

    Example:
        >>> one_line(ValueError("one\n  two"))
        'one two'
    """
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else f"{text[:limit]}..."
