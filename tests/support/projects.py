"""The project folders of this repository."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
CORE = ROOT / "core"
SURFACES = tuple(ROOT / "plugins" / "surfaces" / name for name in ("cli", "openai-api", "server"))
KITS = tuple(ROOT / "plugins" / "kits" / name for name in ("adapters", "conformance", "memory-kit"))
ADAPTERS = KITS[0]
SERVER = (CORE, *SURFACES, ADAPTERS)
"""What `pip install "llamastack[server]"` brings of this repository."""


EXAMPLES = tuple(ROOT / "examples" / name for name in ("llamastack-speech", "llamastack-provider-beeper"))
"""A package that adds an API, and one of a provider of it."""


def provider(name: str) -> Path:
    """The project folder of `llamastack-provider-<name>`."""
    return ROOT / "plugins" / "providers" / name
