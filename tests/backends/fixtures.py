"""Fixtures of the backends, for every test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from backends.fault_proxy import FaultProxy, fault_proxy
from backends.llama_server import LlamaServer, llama_server
from backends.openai_front import OpenAIFront, openai_front
from backends.scripted_http import ScriptedHttp, scripted_http


@pytest.fixture(scope="session")
def llama() -> Iterator[LlamaServer]:
    """llama.cpp's server, one for all tests of this process."""
    with llama_server() as server:
        yield server


@pytest.fixture
def front(llama: LlamaServer) -> Iterator[Callable[..., tuple[OpenAIFront, str]]]:
    """Make an `OpenAIFront` over the llama.cpp server; gives it and its URL."""
    with ExitStack() as opened:
        yield lambda **settings: opened.enter_context(openai_front(llama, **settings))


@pytest.fixture
def faulty() -> Iterator[Callable[[str], FaultProxy]]:
    """Make a `FaultProxy` before a URL."""
    with ExitStack() as opened:

        def make(target: str, **faults: Any) -> FaultProxy:
            proxy = opened.enter_context(fault_proxy(target))
            for name, value in faults.items():
                setattr(proxy, name, value)
            return proxy

        yield make


@pytest.fixture
def scripted_backend() -> Iterator[ScriptedHttp]:
    """A backend that writes what the test says."""
    with scripted_http() as backend:
        yield backend


@pytest.fixture(params=["aiohttp", "httpx"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The transport of `http_client`; httpx's own is used with a proxy or a client certificate."""
    if request.param == "httpx":
        monkeypatch.setattr("llamastack_adapters.http_client.aiohttp_transport", lambda options, **more: None)
    return str(request.param)
