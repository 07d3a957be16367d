"""The command `llamastack`."""

from __future__ import annotations

import gc
import sys

# The objects that imports make stay. Searching them for garbage again and again takes a tenth of a start.
_GARBAGE_AFTER = 50_000


def main() -> int:
    """Run the command `llamastack` and return its exit status."""
    # perf: ready
    gc.set_threshold(_GARBAGE_AFTER)
    # If rich is installed, httpx imports its own command line, which takes a tenth of our start.
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
    from llamastack_cli.group import cli

    return cli.run()
