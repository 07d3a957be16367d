"""The command `llamastack`."""

from __future__ import annotations

import gc
import sys

# Objects that imports make stay: to look through them again and again takes a tenth of a start.
_GARBAGE_AFTER = 50_000


def main() -> int:
    """The `llamastack` command; gives back its exit status."""
    # perf: ready
    gc.set_threshold(_GARBAGE_AFTER)
    # httpx brings a command line of its own where rich is installed: a tenth of the time that our start takes.
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
    from llamastack_cli.group import cli

    return cli.run()
