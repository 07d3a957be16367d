"""The command `llamastack`."""

from __future__ import annotations

import sys


def main() -> int:
    """The `llamastack` command; gives back its exit status."""
    # httpx brings a command line of its own where rich is installed: a tenth of the time that our start takes.
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
    from llamastack_cli.group import cli

    return cli.run()
