"""Fixtures that every test can use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from installed_fakes import install, scripted_discovery
from scripted_fake import SCRIPTS, Script
from scripted_stacks import Scripted, Scripts

from llamastack.stack import Stack
from llamastack.stack.discovery import Discovery


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test writes into the home folder of whoever runs it."""
    home = tmp_path / "home"
    monkeypatch.setenv("LLAMASTACK_HOME", str(home))
    return home


@pytest.fixture
def discovery(tmp_path: Path) -> Discovery:
    """What is installed, and the scripted fakes."""
    return scripted_discovery(tmp_path / "site-packages")


@pytest.fixture
def script() -> Iterator[Scripts]:
    """Make the script that a provider with `config: {script: NAME}` follows."""

    def make(name: str = "default", **settings: Any) -> Script:
        SCRIPTS[name] = Script(**settings)
        return SCRIPTS[name]

    SCRIPTS.clear()
    yield make
    SCRIPTS.clear()


@pytest.fixture
def scripted(discovery: Discovery) -> Scripted:
    """A stack (not started) with one scripted inference provider per argument: `scripted("a", "b", port=...)`."""

    def make(*names: str, **run: Any) -> Stack:
        providers = [{"provider_id": name, "provider_type": "scripted", "config": {"script": name}} for name in names]
        return Stack.from_config({"providers": {"inference": providers}, **run}, discovery=discovery)

    return make


@pytest.fixture
def store(tmp_path: Path) -> dict[str, Any]:
    """The `store` of a run config: a file of this test, which several stacks may share."""
    return {"type": "sqlite", "config": {"path": str(tmp_path / "registry.sqlite")}}


@pytest.fixture
def calls_plugin(tmp_path: Path) -> Iterator[None]:
    """The plugin of `access_fake` that follows calls, installed and without memory of earlier tests."""
    import access_fake

    install(tmp_path / "site-packages", "acme-calls", access_fake.CALLS)
    access_fake.forget()
    yield
    access_fake.forget()
