"""A lock that the kernel releases however its process ends. Functions block, though not for long."""

from __future__ import annotations

import os
from pathlib import Path

from llamastack.provider.private_files import private_file


class FileLock:
    """An exclusive lock on a file (`flock`)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: int | None = None

    def take(self) -> bool:
        """Hold it; False if another process does. Raises OSError."""
        import fcntl  # not on Windows

        descriptor = os.open(private_file(self._path), os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._held = descriptor
        return True

    def release(self) -> None:
        """Release it, if it is held."""
        if self._held is not None:
            os.close(self._held)
            self._held = None


def is_held(path: Path) -> bool:
    """Whether a process holds the lock on this file. Raises OSError."""
    import fcntl

    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
