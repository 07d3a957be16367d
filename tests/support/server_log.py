"""The server's logging, set up in this process."""

from __future__ import annotations

import io
import logging
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO

import pytest

from llamastack_server import logs

Log = Callable[[], str]


@contextmanager
def server_log(
    level: str | None = None, *, worker: str | None = None, packages: Iterable[str] = (), stderr: TextIO | None = None
) -> Iterator[Log]:
    """Set it up as `set_up_logging` does; gives what is written, once it has been stopped.

    stderr: takes the lines; by default a `StringIO`, and only that can be read.
    """
    stream = io.StringIO() if stderr is None else stderr
    before = logging.getLogger().handlers[:], logging.getLogger().level, logging.getLogger("llamastack").level
    hooks = threading.excepthook, sys.unraisablehook
    logging.captureWarnings(False)  # it may still be on, for a showwarning that is there no more
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        logs.set_up_logging(level, worker=worker, packages=packages)
        handler = logs._own
        assert handler is not None

        def written() -> str:
            handler.stop()
            return stream.getvalue() if isinstance(stream, io.StringIO) else ""

        try:
            yield written
        finally:
            handler.stop()
            logging.captureWarnings(False)
            threading.excepthook, sys.unraisablehook = hooks
            logs._levels.forget()
            logging.getLogger().handlers[:], root_level, own_level = before
            logging.getLogger().setLevel(root_level)
            logging.getLogger("llamastack").setLevel(own_level)
