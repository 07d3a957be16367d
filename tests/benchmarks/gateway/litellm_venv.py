"""The litellm proxy, installed into an environment of its own when it is first measured."""

from __future__ import annotations

import secrets
import subprocess
import sys
import venv
from pathlib import Path

VERSION = "1.106.12"  # later ones have their proxy in a package of its own
KEY = f"sk-{secrets.token_hex(32)}"
"""What its clients send: it does not start without one, so it checks a key where the other contenders check none."""

_FOLDER = Path(__file__).parents[3] / ".cache" / "benchmarks" / f"litellm-{VERSION}"


def command() -> Path:
    """The command that starts the proxy."""
    return _FOLDER / "bin" / "litellm"


def install() -> str | None:
    """Install it where it is not yet; returns why that failed."""
    done = _FOLDER / ".installed"
    if done.exists():
        return None
    print(f"installing litellm {VERSION} into {_FOLDER} ...", file=sys.stderr, flush=True)
    venv.create(_FOLDER, clear=True, with_pip=True)
    pip = [str(_FOLDER / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    result = subprocess.run([*pip, f"litellm[proxy]=={VERSION}"], check=False, capture_output=True, text=True)
    if result.returncode != 0:
        return f"not installed: {result.stderr.strip().splitlines()[-1]}"
    done.touch()
    return None
