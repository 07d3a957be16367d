"""No file descriptors are left: a shortage of this process or its machine, not a fault of any provider."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

_NUMBERS = (errno.EMFILE, errno.ENFILE)
SHORTAGE = "this server has no file descriptors left (the limit is that of `ulimit -n`)"
"""The message for users."""


def is_shortage(error: BaseException) -> bool:
    """Whether an error comes from the shortage. Some libraries then say that a name or a file is not found."""
    for one in chain_of(error):
        if isinstance(one, OSError) and getattr(one, "errno", None) in _NUMBERS:
            return True
        if type(one).__name__ in ("gaierror", "OperationalError") and none_left():
            return True
    return False


def none_left() -> bool:
    """Whether there are none left now."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno in _NUMBERS
    return False


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """The error, its causes, and the errors in its groups, outermost first."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        one = waiting.pop(0)
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        # aiohttp keeps the arguments in its own attributes.
        waiting += [getattr(one, "certificate_error", None), getattr(one, "os_error", None)]
        waiting.append(one.__cause__ or one.__context__)
        waiting += one.exceptions if isinstance(one, BaseExceptionGroup) else ()
