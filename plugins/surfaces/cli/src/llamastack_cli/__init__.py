"""The command `llamastack`."""

from __future__ import annotations

import gc
import sys

# The numbers of `gc.set_threshold`. The objects that imports make stay: searching them for garbage again and again
# takes a tenth of a start. The second number is small, so that a start with very many registrations has many short
# searches in place of a long one: at most 20 ms in place of 80.
_GARBAGE_AFTER = 50_000, 1


def main() -> int:
    """Run the command `llamastack` and return its exit status."""
    # perf: ready
    gc.set_threshold(*_GARBAGE_AFTER)
    # If rich is installed, httpx imports its own command line, which takes a tenth of our start.
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
    from llamastack_cli.group import cli

    return cli.run()
