"""Floor 5: what a person types."""

from __future__ import annotations

import sys
from importlib.util import find_spec

_NEEDED = ("click", "rich", "starlette", "uvicorn")


def main() -> int:
    """The `llamastack` command; gives back its exit status."""
    if any(find_spec(name) is None for name in _NEEDED):
        sys.stderr.write('error: the command line needs more packages: pip install "llamastack[server]"\n')
        return 2
    # httpx brings a command line of its own where rich is installed: a tenth of the time that our start takes.
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
    from llamastack.cli.group import cli

    return cli.run()
