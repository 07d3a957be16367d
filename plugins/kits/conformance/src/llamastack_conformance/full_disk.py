"""A disk that is full: no file of this process can be written to."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager

from llamastack_conformance.checks import NotApplicable


@contextmanager
def full_disk() -> Iterator[None]:
    """Inside the block every write to a file fails with EFBIG. Pipes, sockets and reads work.

    It is the limit RLIMIT_FSIZE of POSIX, for the whole process with its threads; Python ignores its signal. Keep the
    block short. Raises NotApplicable on systems without such limits.
    """
    try:
        resource = importlib.import_module("resource")
    except ImportError:
        raise NotApplicable("this system cannot limit the size of files") from None
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
