"""Values in error messages: shortened to one line."""

import errno
import reprlib

_SHORT = reprlib.Repr()
_SHORT.maxlevel = 2
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60


def show(value: object) -> str:
    """Return `repr(value)`, truncated to 80 characters without building the whole text."""
    try:
        text = _SHORT.repr(value)
    except ValueError:
        # Python refuses to print an int of more than 4300 digits.
        return f"a very large {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."


def flatten(text: object) -> str:
    """Return the text on one line, at most 200 characters."""
    line = " ".join(str(text).split())
    return line if len(line) <= 200 else f"{line[:197]}..."


def describe_exception(error: BaseException) -> str:
    """Return the message of an exception; its type if there is none, and more for long paths."""
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        path = str(error.filename)
        return f"the path {show(path)} of {len(path)} characters is too long for the file system"
    return str(error) or type(error).__name__
