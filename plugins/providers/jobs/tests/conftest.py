"""What all tests of jobs share."""

from __future__ import annotations

import pytest

from llamastack_provider_jobs import worker as worker_module


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks often, and pauses shortly before another attempt."""
    monkeypatch.setattr(worker_module, "_WATCH_S", 0.02)
    monkeypatch.setattr(worker_module, "_POLL_S", 0.02)
    monkeypatch.setattr(worker_module, "_FIRST_PAUSE_S", 0.01)
